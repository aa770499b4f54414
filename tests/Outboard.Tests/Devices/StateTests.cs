// What block, network and entropy devices carry over to another host, and what they refuse there.
using System.Net.NetworkInformation;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Devices.Rng;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;
using Xunit;

namespace Outboard.Tests.Devices;

public sealed class StateTests
{
    private const long DiskBytes = 1 << 20;

    [Fact]
    public void Block_keeps_the_mode_of_its_write_cache()
    {
        BlockDevice source = Block();
        source.AcceptFeatures(BlockFeatures.Flush | BlockFeatures.ConfigWriteCache);
        Assert.True(source.WriteConfig((uint)BlockConfig.WriteBack.Offset, [0]));
        BlockDevice target = Block();
        target.LoadState(source.SaveState());
        target.AcceptFeatures(BlockFeatures.Flush | BlockFeatures.ConfigWriteCache);
        Assert.Equal(0UL, target.Config.Get(BlockConfig.WriteBack));
        Assert.False(target.IsWriteBack);
    }

    [Fact]
    public void Block_of_another_disk_is_refused()
    {
        byte[] state = Block().SaveState();
        Assert.Throws<DeviceStateException>(() => Block(bytes: DiskBytes / 2).LoadState(state));
        Assert.Throws<DeviceStateException>(() => Block(blockSize: 4096).LoadState(state));
        Assert.Throws<DeviceStateException>(() => Block(isReadOnly: true).LoadState(StateWithDiscard()));
        Assert.Throws<DeviceStateException>(() => new RngDevice(EntropySource.System).LoadState(state));
    }

    [Fact]
    public void Net_keeps_what_its_driver_and_its_front_end_told()
    {
        using LoopbackBackend backend = new(2);
        NetDevice source = Net(backend);
        source.AcceptFeatures(NetFeatures.GuestAnnounce);
        source.WriteConfig((uint)NetConfig.Mac.Offset, [2, 0, 0, 0, 0, 9]);
        Assert.True(source.TrySetMtu(1400));
        Assert.True(source.TryAnnounce([2, 0, 0, 0, 0, 9]));
        Assert.True(source.RequestAnnounce());

        NetDevice target = Net(backend);
        target.LoadState(source.SaveState());
        byte[] mac = new byte[6];
        target.Config.Read((uint)NetConfig.Mac.Offset, mac);
        Assert.Equal([2, 0, 0, 0, 0, 9], mac);
        Assert.Equal(1400UL, target.Config.Get(NetConfig.Mtu));
        Assert.Equal(NetConfig.LinkUp | NetConfig.Announce, target.Config.Get(NetConfig.Status));
        Assert.Equal(1, target.ActivePairs);
        Assert.True(target.HasAnnouncement);
    }

    [Fact]
    public void Net_with_fewer_pairs_is_refused()
    {
        using LoopbackBackend backend = new(2);
        NetDevice source = Net(backend);
        source.AcceptFeatures(NetFeatures.MultiQueue);
        NetDevice target = new(backend, new NetDeviceOptions { HasControlQueue = true });
        Assert.Throws<DeviceStateException>(() => target.LoadState(source.SaveState()));
    }

    [Fact]
    public void Rng_keeps_what_is_left_of_its_rate()
    {
        RngDevice source = new(EntropySource.System, new RngDeviceOptions { MaxBytesPerSecond = 1 << 30 });
        source.Budget.Spend((1 << 30) - 5);
        RngDevice target = new(EntropySource.System, new RngDeviceOptions { MaxBytesPerSecond = 3 });
        target.LoadState(source.SaveState());
        Assert.Equal(3, target.Budget.Left);
        RngDevice other = new(EntropySource.System, new RngDeviceOptions { MaxBytesPerSecond = 1 << 30 });
        other.LoadState(source.SaveState());
        Assert.Equal(5, other.Budget.Left);
        new RngDevice(EntropySource.System).LoadState(source.SaveState());
    }

    private static byte[] StateWithDiscard()
    {
        BlockDevice source = Block();
        source.AcceptFeatures(BlockFeatures.Discard);
        return source.SaveState();
    }

    private static BlockDevice Block(long bytes = DiskBytes, int blockSize = 512, bool isReadOnly = false) =>
        new(new NullDisk(bytes), new BlockDeviceOptions { BlockSize = blockSize, ReadOnly = isReadOnly });

    private static NetDevice Net(NetBackend backend) => new(backend, new NetDeviceOptions
    {
        Mac = PhysicalAddress.Parse("02-00-00-00-00-01"),
        PairCount = 2,
        HasControlQueue = true,
    });
}

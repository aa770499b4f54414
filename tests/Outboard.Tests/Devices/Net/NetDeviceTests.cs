// A network device's identity, features, configuration and control queue.
using System.Net.NetworkInformation;
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Linux;
using Outboard.Linux.Tap;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Net;

public sealed class NetDeviceTests
{
    private static readonly PhysicalAddress s_mac = PhysicalAddress.Parse("52-54-00-12-34-56");

    [Fact]
    public void Features_follow_options_and_back_end()
    {
        using NullBackend nothing = new();
        const ulong always = NetFeatures.MergeableBuffers | NetFeatures.Status;
        Assert.Equal(always, new NetDevice(nothing).DeviceFeatures);
        NetDevice full = new(nothing, new NetDeviceOptions { Mac = s_mac, Mtu = 1400, PairCount = 2 });
        Assert.Equal(always | NetFeatures.Mac | NetFeatures.Mtu | NetFeatures.MultiQueue, full.DeviceFeatures);
        Assert.Equal(4, full.QueueCount);
        using LoopbackBackend loopback = new();
        NetDevice controlled = new(loopback, new NetDeviceOptions { HasControlQueue = true });
        Assert.Equal(3, controlled.QueueCount);
        Assert.Equal(NetOffload.All, controlled.DeviceFeatures & NetOffload.All);
        Assert.NotEqual(0UL, controlled.DeviceFeatures & NetFeatures.GuestAnnounce);
    }

    [Fact]
    public void The_configuration_tells_address_link_pairs_and_mtu()
    {
        using NullBackend nothing = new();
        NetDevice device = new(nothing, new NetDeviceOptions { Mac = s_mac, Mtu = 9000, PairCount = 3 });
        byte[] config = new byte[12];
        device.Config.Read(0, config);
        Assert.Equal([0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 3, 0, 0x28, 0x23], config);
        int changes = 0;
        device.ConfigChanged += () => changes++;
        device.SetLink(false);
        device.SetLink(false);
        Assert.Equal((1, 0UL), (changes, device.Config.Get(NetConfig.Status)));
    }

    [Fact]
    public async Task The_control_queue_carries_commands_out()
    {
        using NullBackend nothing = new();
        NetDevice device = new(nothing, new NetDeviceOptions { Mac = s_mac, PairCount = 2, HasControlQueue = true });
        await using QueueRig rig = new(device, device.DeviceFeatures);
        DrivenQueue control = await rig.StartAsync(4, size: 64);
        Assert.Equal(0, Command(rig, control, NetControlClass.MultiQueue, 0, 2, 0));
        Assert.Equal(2, device.ActivePairs);
        Assert.Equal(1, Command(rig, control, NetControlClass.MultiQueue, 0, 3, 0));
        Assert.Equal(1, Command(rig, control, NetControlClass.MultiQueue, 0, 0, 0));
        Assert.Equal(0, Command(rig, control, NetControlClass.Mac, 1, 2, 3, 4, 5, 6, 7));
        Assert.Equal(0x070605040302UL, device.Config.Get(NetConfig.Mac));
        Assert.Equal(0, Command(rig, control, NetControlClass.ReceiveMode, 0, 1));
        Assert.Equal(1, Command(rig, control, (NetControlClass)200, 0, 1));
        Assert.Equal(1, Command(rig, control, NetControlClass.MultiQueue, 0));
        Assert.True(device.RequestAnnounce());
        Assert.Equal(NetConfig.LinkUp | NetConfig.Announce, device.Config.Get(NetConfig.Status));
        Assert.Equal(0, Command(rig, control, NetControlClass.Announce, 0));
        Assert.Equal(NetConfig.LinkUp, device.Config.Get(NetConfig.Status));
    }

    [Fact]
    public void What_does_not_suit_is_refused()
    {
        using LoopbackBackend loopback = new();
        Assert.Throws<ArgumentException>(() => new NetDevice(loopback, new NetDeviceOptions { PairCount = 2 }));
        Assert.Throws<ArgumentException>(() => new NetDevice(loopback, new NetDeviceOptions { Mtu = 67 }));
        Assert.Throws<LinuxException>(() => TapDevice.Open("a-name-that-is-too-long"));
    }

    private static int Command(QueueRig rig, DrivenQueue queue, NetControlClass group, params byte[] command)
    {
        DriverBuffer request = rig.Memory.Allocate((uint)(1 + command.Length));
        DriverBuffer answer = rig.Memory.Allocate(1);
        request.Span[0] = (byte)group;
        command.CopyTo(request.Span[1..]);
        answer.Span[0] = 0xFF;
        Assert.True(queue.Ring.TryAdd([request], [answer], 0));
        queue.Submit();
        Assert.Equal(1u, queue.Collect().Written);
        return answer.Span[0];
    }
}

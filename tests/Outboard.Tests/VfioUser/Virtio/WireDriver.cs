// A driver of virtio over PCI on a raw vfio-user client: it finds the capabilities, negotiates, and runs one queue.
using Outboard.Linux.Events;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Virtio;

internal sealed class WireDriver(WireClient client)
{
    public const ulong Split = VirtioFeatures.Version1 | VirtioFeatures.RingReset;
    public const ulong Packed = Split | VirtioFeatures.RingPacked;
    private const byte Ready = 1 | 2 | 8;

    /// <summary>Type of a part, to BAR, offset and length.</summary>
    public Dictionary<byte, (byte Bar, uint Offset, uint Length)> Parts { get; } = [];

    /// <summary>Where the window in the configuration space is.</summary>
    public byte ConfigAccess { get; private set; }

    public uint NotifyMultiplier { get; private set; }

    public async Task FindPartsAsync()
    {
        byte[] config = await client.ReadRegionAsync(7, 0, 256);
        for (int at = config[0x34]; at != 0; at = config[at + 1])
        {
            if (config[at] != 9)
            {
                continue;
            }

            byte type = config[at + 3];
            Parts[type] =
                (config[at + 4], BitConverter.ToUInt32(config, at + 8), BitConverter.ToUInt32(config, at + 12));
            if (type == VirtioPci.NotifyConfig)
            {
                NotifyMultiplier = BitConverter.ToUInt32(config, at + 16);
            }
            else if (type == VirtioPci.PciConfig)
            {
                ConfigAccess = (byte)at;
            }
        }
    }

    public Task<T> ReadAsync<T>(int field)
        where T : unmanaged => client.ReadRegionAsync<T>(0, (ulong)field);

    public Task WriteAsync<T>(int field, T value)
        where T : unmanaged => client.WriteRegionAsync(0, (ulong)field, value);

    public async Task<ulong> OfferedAsync()
    {
        await WriteAsync(VirtioPciRegister.DeviceFeatureSelect, 0u);
        uint low = await ReadAsync<uint>(VirtioPciRegister.DeviceFeature);
        await WriteAsync(VirtioPciRegister.DeviceFeatureSelect, 1u);
        return low | ((ulong)await ReadAsync<uint>(VirtioPciRegister.DeviceFeature) << 32);
    }

    /// <summary>From reset to FEATURES_OK.</summary>
    /// <returns>The status that the device shows.</returns>
    public async Task<byte> NegotiateAsync(ulong features)
    {
        await SetStatusAsync(0);
        await SetStatusAsync(1);
        await SetStatusAsync(1 | 2);
        await WriteAsync(VirtioPciRegister.DriverFeatureSelect, 0u);
        await WriteAsync(VirtioPciRegister.DriverFeature, (uint)features);
        await WriteAsync(VirtioPciRegister.DriverFeatureSelect, 1u);
        await WriteAsync(VirtioPciRegister.DriverFeature, (uint)(features >> 32));
        await SetStatusAsync(Ready);
        return await ReadAsync<byte>(VirtioPciRegister.DeviceStatus);
    }

    public Task SetStatusAsync(byte status) => WriteAsync(VirtioPciRegister.DeviceStatus, status);

    public Task StartAsync() => SetStatusAsync(Ready | 4);

    public async Task EnableAsync(DriverQueue ring, ushort vector = VirtioPci.NoVector)
    {
        await WriteAsync(VirtioPciRegister.QueueSelect, (ushort)ring.Index);
        await WriteAsync(VirtioPciRegister.QueueSize, (ushort)ring.Size);
        await WriteAsync(VirtioPciRegister.QueueVector, vector);
        await WriteAsync(VirtioPciRegister.QueueDescriptors, (uint)ring.Addresses.Descriptors);
        await WriteAsync(VirtioPciRegister.QueueDescriptors + 4, (uint)(ring.Addresses.Descriptors >> 32));
        await WriteAsync(VirtioPciRegister.QueueDriver, ring.Addresses.Available);
        await WriteAsync(VirtioPciRegister.QueueDevice, ring.Addresses.Used);
        await WriteAsync(VirtioPciRegister.QueueEnable, (ushort)1);
    }

    /// <summary>Sends one request of a writable buffer, and waits until it is used.</summary>
    public static async Task<byte[]> AskAsync(DriverQueue ring, DriverMemory memory, Func<Task> kick)
    {
        DriverBuffer buffer = memory.Allocate(16);
        Assert.True(ring.TryAdd([], [buffer], 7));
        ring.Publish();
        await kick();
        uint token = 0;
        uint written = 0;
        await Eventually.TrueAsync(() => ring.TryCollect(out token, out written), "the request is used");
        Assert.Equal(7u, token);
        return buffer.Span[..(int)written].ToArray();
    }

    public Task NotifyAsync(int queue) => client.WriteRegionAsync(
        0, Parts[VirtioPci.NotifyConfig].Offset + ((ulong)queue * NotifyMultiplier), (ushort)queue);

    public Task ShareAsync(DriverMemory memory) =>
        client.MapAsync(memory.GuestAddress, memory.SizeBytes, memory.File.Descriptor);

    public Task UnshareAsync(DriverMemory memory) => client.CallAsync(
        VfioUserCommand.DmaUnmap,
        WireClient.Bytes(new DmaUnmapPayload(24, DmaUnmapFlags.None, memory.GuestAddress, memory.SizeBytes)));

    public Task BindAsync(uint vector, EventFd eventFd) => client.CallAsync(
        VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 2, vector, 1), eventFd.Descriptor);

    /// <summary>Enables MSI-X as a guest does.</summary>
    public async Task EnableMsixAsync()
    {
        byte[] config = await client.ReadRegionAsync(7, 0, 256);
        int at = config[0x34];
        while (config[at] != 0x11)
        {
            at = config[at + 1];
        }

        await client.WriteRegionAsync(7, (ulong)at + 2, (ushort)0x8000);
    }
}

// A network device on a back-end, and its first pair of queues with a driver on the other side.
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Net;

internal sealed class NetRig : IAsyncDisposable
{
    private readonly QueueRig _rig;
    private readonly NetBackend _backend;
    private uint _lastToken;

    private NetRig(NetBackend backend, NetDevice device, ulong features, TimeSpan maxPolling)
    {
        _backend = backend;
        Device = device;
        _rig = new QueueRig(device, features, maxPolling);
    }

    public NetDevice Device { get; }

    public DriverMemory Memory => _rig.Memory;

    public DrivenQueue Receive { get; private set; } = null!;

    public DrivenQueue Send { get; private set; } = null!;

    public NetCounters Received => Device.Counters[0];

    public NetCounters Sent => Device.Counters[1];

    /// <summary>Starts the first pair.</summary>
    public static async Task<NetRig> StartAsync(
        NetBackend backend,
        ulong features = 0,
        int queueSize = 64,
        TimeSpan maxPolling = default,
        NetDevice? device = null)
    {
        NetRig rig = new(backend, device ?? new NetDevice(backend), features, maxPolling);
        rig.Receive = await rig._rig.StartAsync(0, queueSize);
        rig.Send = await rig._rig.StartAsync(1, queueSize);
        return rig;
    }

    /// <summary>Offers buffers for packets to come.</summary>
    public List<DriverBuffer> Offer(params IEnumerable<int> sizes)
    {
        List<DriverBuffer> buffers = [];
        foreach (int size in sizes)
        {
            DriverBuffer buffer = Memory.Allocate((uint)size);
            buffers.Add(buffer);
            Assert.True(Receive.Ring.TryAdd([], [buffer], _lastToken++));
        }

        Receive.Submit();
        return buffers;
    }

    /// <summary>A chain's content: a header and a frame.</summary>
    public DriverBuffer Packet(ReadOnlySpan<byte> frame, NetHeader header = default)
    {
        DriverBuffer buffer = Memory.Allocate((uint)(NetHeader.Bytes + frame.Length));
        System.Runtime.InteropServices.MemoryMarshal.Write(buffer.Span, in header);
        frame.CopyTo(buffer.Span[NetHeader.Bytes..]);
        return buffer;
    }

    /// <summary>Sends a chain and waits until it is returned.</summary>
    public void SendAndCollect(params DriverBuffer[] buffers)
    {
        Assert.True(Send.Ring.TryAdd(buffers, [], 77));
        Send.Submit();
        Assert.Equal((77u, 0u), Send.Collect());
    }

    /// <inheritdoc cref="QueueRig.AllocatedAsync"/>
    public Task<long> AllocatedAsync(Action once) => _rig.AllocatedAsync(once);

    /// <summary>A frame whose bytes tell where they belong.</summary>
    public static byte[] Frame(int length, int seed = 1)
    {
        byte[] frame = new byte[length];
        for (int i = 0; i < length; i++)
        {
            frame[i] = (byte)(seed + (i * 7) + (i >> 8));
        }

        return frame;
    }

    public static NetHeader HeaderOf(DriverBuffer buffer) =>
        System.Runtime.InteropServices.MemoryMarshal.Read<NetHeader>(buffer.Span);

    public async ValueTask DisposeAsync()
    {
        await _rig.DisposeAsync();
        _backend.Dispose();
    }
}

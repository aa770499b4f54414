// NetFrontend.cs - a network driver without a machine: our front-end with one pair of queues, and packets as bytes.
using System.Diagnostics;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.InteropTests.Frontend;

internal sealed class NetFrontend : IAsyncDisposable
{
    private const int QueueSize = 64;
    private const int BufferBytes = 2048;

    /// <summary>virtio_net_hdr with num_buffers, as VERSION_1 has it.</summary>
    private const int HeaderBytes = 12;

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    private readonly VhostUserFrontend _frontend;
    private readonly DriverMemory _memory = new(1 << 20);
    private readonly List<DriverBuffer> _buffers = [];
    private readonly Stack<uint> _free = new();
    private FrontendQueue? _receive;
    private FrontendQueue? _send;

    private NetFrontend(VhostUserFrontend frontend) => _frontend = frontend;

    public ulong Features => _frontend.Features;

    public static async Task<NetFrontend> ConnectAsync(
        string socketPath, bool packed = false, bool inOrder = false)
    {
        VhostUserFrontendOptions options = new()
        {
            Features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex,
            UsePacked = packed,
            UseInOrder = inOrder,
        };
        NetFrontend net = new(await VhostUserFrontend.ConnectAsync(socketPath, options));
        try
        {
            await net.StartAsync();
            return net;
        }
        catch
        {
            await net.DisposeAsync();
            throw;
        }
    }

    /// <summary>Sends packets together, and waits until their buffers are free again.</summary>
    public void Send(params ReadOnlySpan<byte[]> packets)
    {
        foreach (byte[] packet in packets)
        {
            uint slot = _free.Pop();
            DriverBuffer buffer = _buffers[(int)slot].Slice(0, (uint)(HeaderBytes + packet.Length));
            buffer.Span.Clear();
            packet.CopyTo(buffer.Span[HeaderBytes..]);
            Require(_send!.Ring.TryAdd([buffer], [], slot), "no room in the queue for sending");
        }

        _send!.Submit();
        for (int i = 0; i < packets.Length; i++)
        {
            _free.Push(Collect(_send, out _));
        }
    }

    /// <summary>Waits for the next packet that fits.</summary>
    public byte[] Receive(Predicate<byte[]> fits)
    {
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < s_limit)
        {
            uint slot = Collect(_receive!, out uint written);
            byte[] packet = _buffers[(int)slot].Span[HeaderBytes..(int)written].ToArray();
            Offer(slot);
            if (fits(packet))
            {
                return packet;
            }
        }

        throw new LabException("other packets came, and not the one that is waited for");
    }

    public async ValueTask DisposeAsync()
    {
        await _frontend.DisposeAsync();
        _receive?.Dispose();
        _send?.Dispose();
        _memory.Dispose();
    }

    private async Task StartAsync()
    {
        bool hasStatus = _frontend.Has(ProtocolFeatures.Status);
        const VirtioStatus ready = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk;
        if (hasStatus)
        {
            await _frontend.SetStatusAsync(ready);
        }

        await _frontend.ShareMemoryAsync(_memory);
        _receive = await _frontend.StartQueueAsync(0, QueueSize, _memory);
        _send = await _frontend.StartQueueAsync(1, QueueSize, _memory);
        for (uint slot = 0; slot < 2 * QueueSize; slot++)
        {
            _buffers.Add(_memory.Allocate(BufferBytes));
            if (slot < QueueSize)
            {
                Require(_receive.Ring.TryAdd([], [_buffers[^1]], slot), "no room in the queue for receiving");
            }
            else
            {
                _free.Push(slot);
            }
        }

        _receive.Submit();
        if (hasStatus)
        {
            await _frontend.SetStatusAsync(ready | VirtioStatus.DriverOk);
        }
    }

    private void Offer(uint slot)
    {
        Require(_receive!.Ring.TryAdd([], [_buffers[(int)slot]], slot), "no room in the queue for receiving");
        _receive.Submit();
    }

    private static uint Collect(FrontendQueue queue, out uint written)
    {
        uint token;
        while (!queue.Ring.TryCollect(out token, out written))
        {
            Require(queue.WaitForUsed((int)s_limit.TotalMilliseconds), $"queue {queue.Ring.Index}: nothing is used");
        }

        return token;
    }

    private static void Require(bool condition, string problem)
    {
        if (!condition)
        {
            throw new LabException(problem);
        }
    }
}

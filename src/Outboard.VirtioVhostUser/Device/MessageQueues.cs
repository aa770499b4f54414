// The two queues that carry messages. Control plane: a message is copied once, and may be allocated.
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>Messages to the driver: a buffer is taken when there is a message, and not before.</summary>
internal sealed class ReceiveQueue : QueueHandler
{
    private readonly VirtioVhostUserDevice _device;
    private readonly Virtqueue _queue;
    private readonly Func<byte[], bool> _write;
    private int _unfit;

    internal ReceiveQueue(VirtioVhostUserDevice device, QueueContext context)
    {
        _device = device;
        _queue = context.Queue;
        _write = TryWrite;
        device.Mailbox.SetReader(context.Wake);
        device.OnMessagesStarted();
    }

    public override bool WantsChains => !_device.Mailbox.IsEmpty;

    public override int Drain(int limit)
    {
        int given = 0;
        while (given < limit && _device.Mailbox.TryGive(_write))
        {
            given++;
            if (_unfit > 0)
            {
                // Not under the mailbox's lock.
                _device.Break($"a message of {_unfit} bytes does not fit into the driver's buffer");
                _unfit = 0;
            }
        }

        return given;
    }

    public override void Dispose()
    {
        _device.Mailbox.SetReader(null);
        _device.OnMessagesStopped();
        base.Dispose();
    }

    private bool TryWrite(byte[] message)
    {
        if (!_queue.TryTake(out DescriptorChain chain))
        {
            return false;
        }

        bool fits = chain.Writable.Length >= message.Length;
        if (fits)
        {
            chain.Writable.CopyFrom(0, message);
        }

        chain.Complete(fits ? (uint)message.Length : 0);
        _queue.Publish();
        _unfit = fits ? 0 : message.Length;
        return true;
    }
}

/// <summary>Messages from the driver.</summary>
internal sealed class TransmitQueue : QueueHandler
{
    private readonly VirtioVhostUserDevice _device;
    private readonly Virtqueue _queue;
    private readonly QueueContext _context;
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal TransmitQueue(VirtioVhostUserDevice device, QueueContext context)
    {
        _device = device;
        _queue = context.Queue;
        _context = context;
        device.SetTransmit(this);
    }

    public override bool WantsChains => _device.HasRoom;

    public override int Drain(int limit)
    {
        int taken = 0;
        while (taken < limit && _device.HasRoom && _queue.TryTake(out DescriptorChain chain))
        {
            taken++;
            Take(chain);
        }

        return taken;
    }

    public override void Dispose()
    {
        _device.SetTransmit(null);
        _stopped.TrySetResult();
        base.Dispose();
    }

    /// <summary>Has the queue looked at again. From any thread.</summary>
    internal void Wake() => _context.Wake();

    /// <summary>
    /// Drops everything that is available by now: it belongs to a session that is over. From any thread. A queue that
    /// has stopped has nothing left, and does nothing any more.
    /// </summary>
    internal Task CutAsync()
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _context.Post(() =>
        {
            while (_queue.TryTake(out DescriptorChain chain))
            {
                chain.Complete(0);
            }

            done.SetResult();
        });
        return Task.WhenAny(done.Task, _stopped.Task);
    }

    private void Take(scoped in DescriptorChain chain)
    {
        long length = chain.Readable.Length;
        if (length > VirtioVhostUserSpec.MaxMessageBytes)
        {
            chain.Complete(0);
            _device.Break($"a message of {length} bytes, at most {VirtioVhostUserSpec.MaxMessageBytes} pass");
            return;
        }

        Span<byte> bytes = stackalloc byte[VirtioVhostUserSpec.MaxMessageBytes];
        int count = chain.Readable.CopyTo(0, bytes[..(int)length]);
        chain.Complete(0);
        if (DriverFrame.TryDecode(bytes[..count], out DriverFrame frame) is { } problem)
        {
            _device.Break(problem);
        }
        else
        {
            _device.OnFromDriver(frame);
        }
    }
}

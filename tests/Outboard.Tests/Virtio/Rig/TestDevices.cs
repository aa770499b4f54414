// A device of each level: (a) answers in HandleRequest, (b) keeps requests for later, (c) owns its queue's loop.
using System.Collections.Concurrent;
using Outboard.Linux.Files;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Rig;

/// <summary>Level (a): writes the sum of the readable bytes into the writable ones.</summary>
internal sealed class SumDevice(int queues = 1) : VirtioDevice(
    VirtioDeviceId.Entropy, Enumerable.Repeat(SplitRing.MaxSize, queues).ToArray())
{
    /// <summary>Runs within each request, on the queue's thread.</summary>
    internal Action<int>? OnRequest { get; set; }

    protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        OnRequest?.Invoke(queue);
        uint sum = 0;
        foreach (ReadOnlySpan<byte> buffer in chain.Readable)
        {
            foreach (byte value in buffer)
            {
                sum += value;
            }
        }

        Span<byte> answer = stackalloc byte[4];
        BitConverter.TryWriteBytes(answer, sum);
        return (uint)chain.Writable.CopyFrom(0, answer);
    }
}

/// <summary>Level (b): keeps every request until the test completes it.</summary>
internal sealed class HoldDevice(int queues = 1) : VirtioDevice(
    VirtioDeviceId.Console, Enumerable.Repeat(256, queues).ToArray())
{
    private readonly BlockingCollection<PendingRequest> _held = [];

    /// <summary>Requests that the test did not take.</summary>
    internal int HeldCount => _held.Count;

    /// <summary>Waits for the next request.</summary>
    internal PendingRequest Take()
    {
        bool came = _held.TryTake(
            out PendingRequest request, ServedRing.PatienceMs, TestContext.Current.CancellationToken);
        Assert.True(came, "no request came");
        return request;
    }

    protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        _held.Add(chain.Detach(), CancellationToken.None);
        return 0xDEAD;
    }
}

/// <summary>Level (b) across queues: a request on queue 1 completes the oldest one of queue 0.</summary>
internal sealed class RelayDevice() : VirtioDevice(VirtioDeviceId.Socket, [256, 256])
{
    private readonly Queue<PendingRequest> _waiting = new();
    private int _held;

    /// <summary>Requests of queue 0 that wait for one of queue 1. From any thread.</summary>
    public int Held => Volatile.Read(ref _held);

    protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        if (queue == 0)
        {
            _waiting.Enqueue(chain.Detach());
            Volatile.Write(ref _held, _waiting.Count);
        }
        else if (_waiting.TryDequeue(out PendingRequest waiting))
        {
            Volatile.Write(ref _held, _waiting.Count);
            waiting.Complete(7);
        }

        return 0;
    }
}

/// <summary>Level (c): a loop of the test's making.</summary>
internal sealed class LoopDevice(Func<QueueContext, QueueHandler> create, int queues = 1) : VirtioDevice(
    VirtioDeviceId.Network, Enumerable.Repeat(256, queues).ToArray())
{
    protected internal override QueueHandler CreateHandler(QueueContext context) => create(context);
}

/// <summary>Takes what is there and completes it in reverse.</summary>
internal class ReverseHandler(QueueContext context) : QueueHandler
{
    private readonly Stack<PendingRequest> _taken = new();

    public override int Drain(int limit)
    {
        int count = 0;
        while (count < limit && context.Queue.TryTake(out DescriptorChain chain))
        {
            _taken.Push(chain.Detach());
            count++;
        }

        while (_taken.TryPop(out PendingRequest request))
        {
            request.Complete(3);
        }

        return count;
    }
}

/// <summary>Reads a file asynchronously into the writable buffers.</summary>
internal sealed class FileHandler(QueueContext context, BlockFile file) : QueueHandler
{
    private readonly PendingRequest[] _requests = new PendingRequest[context.Queue.Size];

    public override int Drain(int limit)
    {
        int count = 0;
        while (count < limit && context.Queue.TryTake(out DescriptorChain chain))
        {
            PendingRequest request = chain.Detach();
            _requests[request.Slot] = request;
            ulong tag = context.TagPrefix | (uint)request.Slot;
            if (!context.Files.TryRead(file, request.Writable.Segments, 0, tag))
            {
                throw new InvalidOperationException("the engine is full");
            }

            count++;
        }

        return count;
    }

    public override void OnFileCompletion(uint tag, int result) => _requests[tag].Complete((uint)result);
}

/// <summary>Keeps two file operations in flight for as long as its queue is served, once it was kicked.</summary>
internal sealed class BusyFileHandler(QueueContext context, BlockFile file, Action onCompletion) : QueueHandler
{
    private PendingRequest _request;
    private bool _isBusy;
    private int _inFlight;

    public override int Drain(int limit)
    {
        if (context.Queue.TryTake(out DescriptorChain chain))
        {
            _request = chain.Detach();
            _isBusy = true;
        }

        while (_isBusy && _inFlight < 2)
        {
            Assert.True(context.Files.TryDataSync(file, context.TagPrefix));
            _inFlight++;
        }

        return _isBusy ? 1 : 0;
    }

    public override void OnFileCompletion(uint tag, int result)
    {
        _inFlight--;
        onCompletion();
    }

    public override void Quiesce()
    {
        _isBusy = false;
        _request.Complete(0);
    }
}

/// <summary>Breaks wherever the test says.</summary>
internal sealed class BreakingHandler(QueueContext context, string place) : ReverseHandler(context)
{
    public override bool HasBacklog => Break(nameof(HasBacklog));

    public override int Drain(int limit)
    {
        Break(nameof(Drain));
        return base.Drain(limit);
    }

    public override void Quiesce() => Break(nameof(Quiesce));

    public override void Dispose()
    {
        base.Dispose();
        Break(nameof(Dispose));
    }

    private bool Break(string here) => here == place ? throw new InvalidOperationException($"broken in {here}") : false;
}

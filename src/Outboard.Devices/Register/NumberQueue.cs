// The queue of a demonstration device. Requests take effect at once; or, when the device is made so, each after a while
// of its own, so that many are open at once and take effect in any order.
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;

namespace Outboard.Devices.Register;

/// <summary>What a request does to the numbers of a device.</summary>
/// <param name="request">The request.</param>
/// <param name="lane">The numbers.</param>
/// <param name="value">The number to be answered; by default that before the request.</param>
internal delegate RegisterStatus NumberEffect(ReadOnlySpan<byte> request, JournalLane lane, ref ulong value);

/// <summary>Serves the queue of a <see cref="NumberDevice"/>.</summary>
internal sealed class NumberQueue : JournaledQueue
{
    private readonly NumberEffect _effect;
    private readonly List<int>? _open;
    private readonly Random _random;
    private readonly QueueContext? _context;
    private readonly TimeSpan _delay;
    private readonly Timer? _timer;
    private readonly Action _finishSome;
    private readonly Lock _gate = new();
    private bool _isDisposed;
    private bool _isTimed;

    /// <summary>Makes a queue whose requests take effect at once, or when <see cref="FinishSome"/> is called.</summary>
    internal NumberQueue(Virtqueue queue, JournalLane lane, NumberEffect effect, Random? defers = null)
        : base(queue, lane)
    {
        _effect = effect;
        _open = defers is null ? null : new List<int>(NumberDevice.QueueSize);
        _random = defers ?? Random.Shared;
        _finishSome = FinishSome;
    }

    /// <summary>Makes a queue whose requests take effect up to so much later.</summary>
    internal NumberQueue(QueueContext context, JournalLane lane, NumberEffect effect, TimeSpan delay)
        : this(context.Queue, lane, effect, Random.Shared)
    {
        _context = context;
        _delay = delay;
        _timer = new Timer(_ => OnTime());
    }

    public override void Quiesce()
    {
        while (OpenCount > 0)
        {
            FinishSome();
        }
    }

    public override void Dispose()
    {
        lock (_gate)
        {
            _isDisposed = true;
        }

        _timer?.Dispose();
        base.Dispose();
    }

    /// <summary>Requests that are open.</summary>
    internal int Open => OpenCount;

    /// <summary>Some of the requests that are open take effect, one at least.</summary>
    internal void FinishSome()
    {
        _isTimed = false;
        for (int left = _random.Next(OpenCount) + 1; left > 0 && _open!.Count > 0; left--)
        {
            int index = _random.Next(_open.Count);
            int slot = _open[index];
            _open[index] = _open[^1];
            _open.RemoveAt(_open.Count - 1);
            Finish(slot);
        }

        SetTimer();
    }

    protected override bool TryHandle(scoped in DescriptorChain chain)
    {
        if (_open is null)
        {
            Apply(chain.Readable);
            return true;
        }

        _open.Add(Defer(in chain));
        SetTimer();
        return true;
    }

    protected override void TakeEffect(PendingRequest request) => Apply(request.Readable);

    private void Apply(ReadableBuffers request)
    {
        Span<byte> bytes = stackalloc byte[RegisterRequests.LongestBytes];
        ulong value = Lane.Read(NumberDevice.ValueWord);
        int length = (int)Math.Min(request.Length, bytes.Length + 1);
        RegisterStatus status = length <= bytes.Length && request.CopyTo(0, bytes[..length]) == length
            ? _effect(bytes[..length], Lane, ref value) : RegisterStatus.Malformed;
        Lane.Reply(RegisterRequests.MakeReply(status, value, stackalloc byte[RegisterRequests.ReplyBytes]));
    }

    private void SetTimer()
    {
        if (_timer is not null && !_isTimed && OpenCount > 0)
        {
            _isTimed = true;
            _timer.Change(_delay * _random.NextDouble(), Timeout.InfiniteTimeSpan);
        }
    }

    private void OnTime()
    {
        // A timer may fire while it is disposed, and the worker may be gone after that.
        lock (_gate)
        {
            if (!_isDisposed)
            {
                _context!.Post(_finishSome);
            }
        }
    }
}

// The queue of an entropy device. Bytes are fetched first and a chain is taken only when there are some, so that a
// source that is empty, or a rate that is used up, leaves requests in the ring and this thread asleep:
//
//   Drain -> bytes in hand? -> TryTake -> copied, cleared here, completed
//         -> none: WantsChains is false until the timer fires (Wake); devices like /dev/hwrng cannot be waited for
using System.Security.Cryptography;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;

namespace Outboard.Devices.Rng;

internal sealed class RngQueue : QueueHandler
{
    /// <summary>Bytes fetched at a time: what Linux asks for at most; they are lost when the queue stops.</summary>
    private const int FetchBytes = 4096;

    /// <summary>When a source without bytes is asked again.</summary>
    private static readonly TimeSpan s_retryInterval = TimeSpan.FromMilliseconds(10);

    private readonly RngDevice _device;
    private readonly EntropySource _source;
    private readonly Virtqueue _queue;
    private readonly ByteBudget _budget;
    private readonly Timer _timer;
    private readonly Lock _timerGate = new();
    private readonly byte[] _fetched = new byte[FetchBytes];

    private int _start;
    private int _end;
    private bool _waits;
    private bool _isExhausted;
    private bool _isDisposed;

    internal RngQueue(RngDevice device, EntropySource source, ByteBudget budget, QueueContext context)
    {
        _device = device;
        _source = source;
        _queue = context.Queue;
        _budget = budget;
        _timer = new Timer(_ =>
        {
            // A timer may fire while it is disposed, and the worker may be gone after that.
            lock (_timerGate)
            {
                if (!_isDisposed)
                {
                    context.Wake();
                }
            }
        });
    }

    public override bool WantsChains => !_waits;

    public override int Drain(int limit)
    {
        _waits = _isExhausted;
        int taken = 0;
        while (taken < limit && !_waits && _queue.HasAvailable && HasBytes()
            && _queue.TryTake(out DescriptorChain chain))
        {
            taken++;
            chain.Complete(Fill(in chain));
        }

        return taken;
    }

    public override void Dispose()
    {
        lock (_timerGate)
        {
            _isDisposed = true;
        }

        _timer.Dispose();
        CryptographicOperations.ZeroMemory(_fetched);
        base.Dispose();
    }

    /// <summary>Whether there is at least one byte for the next request, fetched and allowed.</summary>
    private bool HasBytes()
    {
        if (!_budget.HasPortion)
        {
            Wait(_budget.TimeToNext);
            return false;
        }

        return _start < _end || Fetch();
    }

    private void Wait(TimeSpan time)
    {
        _waits = true;
        _timer.Change(time, Timeout.InfiniteTimeSpan);
    }

    private bool Fetch()
    {
        int result = _source.Fill(_fetched);
        _start = 0;
        _end = Math.Max(result, 0);
        if (result > 0)
        {
            return true;
        }

        if (result == -Errno.TryAgain)
        {
            Wait(s_retryInterval);
            return false;
        }

        _isExhausted = true;
        _waits = true;
        _device.OnExhausted(result);
        return false;
    }

    /// <summary>Fills a request's buffers as far as bound, budget and source allow.</summary>
    private uint Fill(scoped in DescriptorChain chain)
    {
        WritableBuffers buffers = chain.Writable;
        long wanted = Math.Min(buffers.Length, Math.Min(RngDevice.MaxRequestBytes, _budget.Available));
        long written = 0;
        while (written < wanted && (_start < _end || Fetch()))
        {
            int part = (int)Math.Min(wanted - written, _end - _start);
            Span<byte> bytes = _fetched.AsSpan(_start, part);
            buffers.CopyFrom(written, bytes);
            CryptographicOperations.ZeroMemory(bytes);
            _start += part;
            written += part;
        }

        _budget.Spend(written);
        return (uint)written;
    }
}

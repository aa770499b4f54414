// How many bytes may be given now: a bucket that fills at a rate and holds what a second brings.
// Not here: waiting; see RngQueue.
using System.Diagnostics;

namespace Outboard.Devices.Rng;

/// <summary>A rate limit in bytes. Used by one thread at a time.</summary>
internal sealed class ByteBudget
{
    /// <summary>Fewer bytes than this are not given singly: what Linux asks for at a time.</summary>
    private const long PortionBytes = 64;

    private readonly long _bytesPerSecond;
    private readonly Func<long> _timestamp;
    private long _since;
    private long _left;

    /// <param name="bytesPerSecond">The rate; 0 sets no limit.</param>
    /// <param name="timestamp">The clock, in ticks of <see cref="Stopwatch"/>; for tests.</param>
    internal ByteBudget(long bytesPerSecond, Func<long>? timestamp = null)
    {
        _bytesPerSecond = bytesPerSecond;
        _timestamp = timestamp ?? Stopwatch.GetTimestamp;
        _since = _timestamp();
        _left = bytesPerSecond;
    }

    /// <summary>Bytes that may be given now.</summary>
    internal long Available
    {
        get
        {
            if (_bytesPerSecond == 0)
            {
                return long.MaxValue;
            }

            long now = _timestamp();
            long earned = (long)((Int128)(now - _since) * _bytesPerSecond / Stopwatch.Frequency);
            if (earned > 0)
            {
                _left = Math.Min(_bytesPerSecond, _left + earned);
                _since = now;
            }

            return _left;
        }
    }

    /// <summary>
    /// Bytes that are left of what was earned; a guest that arrives brings them along. No queue runs.
    /// </summary>
    internal long Left
    {
        get => _left;
        set => _left = Math.Min(value, _bytesPerSecond);
    }

    /// <summary>Takes bytes that <see cref="Available"/> allowed.</summary>
    internal void Spend(long bytes)
    {
        if (_bytesPerSecond != 0)
        {
            _left -= bytes;
        }
    }

    /// <summary>Whether there is enough for a request.</summary>
    internal bool HasPortion => Available >= Portion;

    /// <summary>Until there is enough for a request; at least a millisecond.</summary>
    internal TimeSpan TimeToNext => TimeSpan.FromMilliseconds(
        Math.Max(1, Math.Ceiling((Portion - Available) * 1000.0 / _bytesPerSecond)));

    private long Portion => Math.Min(PortionBytes, _bytesPerSecond);
}

// A log-linear histogram of nanoseconds: every power of two is cut into 64 equal buckets, so a bucket is at most 1/64
// (1.6 %) of its value wide, and its middle is wrong by half of that. Recording is one increment; nothing is allocated.
using System.Numerics;

namespace Outboard.Cli.Bench;

/// <summary>Counts latencies. Recorded by one thread.</summary>
internal sealed class LatencyHistogram
{
    private const int BucketBits = 6;
    private const int BucketsPerOctave = 1 << BucketBits;

    /// <summary>Octaves above the linear start: the last bucket begins beyond 2^41 ns, half an hour.</summary>
    private const int Octaves = 36;

    private readonly long[] _buckets = new long[BucketsPerOctave * (Octaves + 1)];
    private long _sum;

    public long Count { get; private set; }

    public long Least { get; private set; } = long.MaxValue;

    public long Most { get; private set; }

    public double Mean => Count == 0 ? 0 : (double)_sum / Count;

    public void Record(long nanoseconds)
    {
        _buckets[IndexOf(nanoseconds)]++;
        _sum += nanoseconds;
        Count++;
        Least = Math.Min(Least, nanoseconds);
        Most = Math.Max(Most, nanoseconds);
    }

    public void Add(LatencyHistogram other)
    {
        for (int i = 0; i < _buckets.Length; i++)
        {
            _buckets[i] += other._buckets[i];
        }

        _sum += other._sum;
        Count += other.Count;
        Least = Math.Min(Least, other.Least);
        Most = Math.Max(Most, other.Most);
    }

    public void Clear()
    {
        Array.Clear(_buckets);
        _sum = 0;
        Count = 0;
        Least = long.MaxValue;
        Most = 0;
    }

    /// <summary>The value that a share of all recorded ones does not exceed.</summary>
    /// <param name="share">0 to 1.</param>
    public long Percentile(double share)
    {
        long wanted = Math.Max(1, (long)Math.Ceiling(Count * share));
        long seen = 0;
        for (int i = 0; i < _buckets.Length; i++)
        {
            seen += _buckets[i];
            if (seen >= wanted)
            {
                return Math.Clamp(MiddleOf(i), Least, Most);
            }
        }

        return Most;
    }

    private static int IndexOf(long value)
    {
        if (value < BucketsPerOctave)
        {
            return (int)Math.Max(0, value);
        }

        int octave = BitOperations.Log2((ulong)value) - BucketBits;
        int index = ((octave + 1) * BucketsPerOctave) + (int)((value >> octave) & (BucketsPerOctave - 1));
        return Math.Min(index, (BucketsPerOctave * (Octaves + 1)) - 1);
    }

    private static long MiddleOf(int index)
    {
        if (index < BucketsPerOctave)
        {
            return index;
        }

        int octave = (index / BucketsPerOctave) - 1;
        long start = ((long)BucketsPerOctave + (index % BucketsPerOctave)) << octave;
        return start + ((1L << octave) / 2);
    }
}

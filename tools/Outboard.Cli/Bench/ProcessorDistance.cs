// How far two processors are from each other: the time that a cache line takes from one to the other and back. Virtual
// machines see their processors move between near and far places, which changes what polling can reach two- to
// threefold: figures are only comparable when they were taken at the same distance.
using System.Diagnostics;
using Outboard.Linux.Threads;

namespace Outboard.Cli.Bench;

/// <summary>Measures the distance of two processors.</summary>
internal sealed class ProcessorDistance
{
    private const int WarmUpRounds = 2_000;
    private const int Rounds = 20_000;

    /// <summary>Places of the line in the array: nothing else shares it, or its neighbour.</summary>
    private const int Line = 32;

    /// <summary>Looks after which a side gives up: the other one does not get to run.</summary>
    private const int MostLooks = 100_000_000;

    private readonly long[] _memory = new long[Line * 3];
    private double _nanoseconds;

    /// <summary>The time of a round trip.</summary>
    /// <returns>Nanoseconds; 0 for a processor and itself.</returns>
    public static double Measure(int one, int other)
    {
        if (one == other)
        {
            return 0;
        }

        ProcessorDistance distance = new();
        using LoadThreads threads = new([one, other], [distance.Ping, distance.Pong]);
        threads.Join();
        return distance._nanoseconds;
    }

    private void Ping()
    {
        long start = 0;
        for (long round = 1; round <= Rounds + WarmUpRounds; round++)
        {
            if (round == WarmUpRounds)
            {
                start = Stopwatch.GetTimestamp();
            }

            Volatile.Write(ref _memory[Line], (2 * round) - 1);
            WaitFor(2 * round);
        }

        _nanoseconds = Stopwatch.GetElapsedTime(start).TotalNanoseconds / Rounds;
    }

    private void Pong()
    {
        for (long round = 1; round <= Rounds + WarmUpRounds; round++)
        {
            WaitFor((2 * round) - 1);
            Volatile.Write(ref _memory[Line], 2 * round);
        }
    }

    private void WaitFor(long value)
    {
        for (int look = 0; Volatile.Read(ref _memory[Line]) != value; look++)
        {
            if (look == MostLooks)
            {
                throw new IOException("--distance-to: the two processors do not get to run at the same time");
            }
        }
    }
}

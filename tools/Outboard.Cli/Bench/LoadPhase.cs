// What the threads of a load are told by the one that measures.
using System.Diagnostics;

namespace Outboard.Cli.Bench;

/// <summary>The phase of a measurement, seen by all threads.</summary>
internal sealed class LoadPhase
{
    private const int WarmingUp = 0;
    private const int Measuring = 1;
    private const int Ended = 2;

    private volatile int _phase = WarmingUp;

    public bool IsMeasuring => _phase == Measuring;

    public bool IsEnded => _phase == Ended;

    /// <summary>When measuring began, in ticks of the stopwatch.</summary>
    public long Start { get; private set; }

    /// <summary>How long was measured.</summary>
    public TimeSpan Elapsed { get; private set; }

    public void Begin()
    {
        Start = Stopwatch.GetTimestamp();
        _phase = Measuring;
    }

    public void End()
    {
        Elapsed = _phase == Measuring ? Stopwatch.GetElapsedTime(Start) : TimeSpan.Zero;
        _phase = Ended;
    }
}

// When a driver is called while requests are still being served.
//
// Calling early lets a driver on another CPU work beside us. But a call that wakes a sleeping CPU costs the caller as
// much as several requests (5 to 9 us in a virtual machine), while a driver that is awake costs nearly nothing to call.
// So the price is measured, call by call, and what a burst of requests takes is measured, too:
//   - a burst that is served within one wake-up (packets, memory): the driver is called after its first request; by the
//     time it is awake it finds the burst done. Nothing is decided by the clock, which would cost as much as a request;
//   - longer requests: a call comes when half of what the driver had outstanding is done, so that the driver wakes up
//     and submits anew while the other half is served: two calls for each round of the driver, none in vain. Calls take
//     a bounded share of the time all the same, and no driver waits for very long requests;
//   - while one thread serves several busy queues: the drivers' work overlaps with that of the other queues anyway, and
//     a driver that wakes on this CPU takes it away from them. Only long turns are interrupted by calls.
// The call at the end of a turn is never held back. All times are ticks of one clock.
using System.Diagnostics;

namespace Outboard.Virtio;

/// <summary>Decides whether a call before the end of a turn pays. Used by one thread.</summary>
internal struct CallPacing
{
    /// <summary>While requests are long, early calls come at least this many prices after the last call.</summary>
    internal const int TimesPrice = 3;

    /// <summary>So many prices after the last call the next one is made, whatever is outstanding.</summary>
    internal const int MostPrices = 16;

    /// <summary>Requests that a driver typically has outstanding.</summary>
    internal const int Burst = 32;

    /// <summary>Of turns with short requests, one of so many is measured.</summary>
    internal const int TurnsPerMeasure = 16;

    /// <summary>A burst of so many ns is short, even if calls are cheap at present: a wake-up takes as long.</summary>
    internal const long ShortNs = 5_000;

    /// <summary>Weight of the newest figure in a running mean: 1 / 2^this.</summary>
    private const int MeanShift = 2;

    private static readonly long s_short = ShortNs * Stopwatch.Frequency / 1_000_000_000;

    private long _price;
    private long _lastCall;
    private long _turnBegan;
    private long _burstTicks;
    private int _unmeasured;

    /// <summary>Whether a burst is served within one wake-up: early calls pay whenever the driver wants one.</summary>
    internal readonly bool IsShort => _burstTicks <= Math.Max(_price, s_short);

    /// <summary>Whether the next turn is to be measured.</summary>
    internal readonly bool IsMeasureDue => _unmeasured >= TurnsPerMeasure - 1 || !IsShort;

    /// <summary>A turn begins.</summary>
    internal void OnTurn(long now) => _turnBegan = now;

    /// <summary>The turn is over; this many requests were served, more than none.</summary>
    internal void OnTurnEnd(long now, int served)
    {
        long ticks = (now - _turnBegan) * Burst / served;
        _burstTicks += (ticks - _burstTicks) >> MeanShift;
        _unmeasured = 0;
    }

    /// <summary>A turn that was not measured is over.</summary>
    internal void OnTurnEnd() => _unmeasured++;

    /// <summary>The driver was called, which took from <paramref name="before"/> to <paramref name="after"/>.</summary>
    internal void OnCall(long before, long after)
    {
        _price += (after - before - _price) >> MeanShift;
        _lastCall = after;
        // a turn is charged with its requests only
        _turnBegan += after - before;
    }

    /// <summary>Whether a call pays now, between long requests of the only busy queue.</summary>
    /// <param name="now">The time.</param>
    /// <param name="isHalfDone">Whether half of what the driver had outstanding at its last call is done.</param>
    internal readonly bool PaysAt(long now, bool isHalfDone)
    {
        long since = now - _lastCall;
        return since >= _price * MostPrices || (isHalfDone && since >= _price * TimesPrice);
    }

    /// <summary>Whether a call pays now, in a turn that began some time ago, among other busy queues.</summary>
    internal readonly bool PaysAmongOthersAt(long now) =>
        now - Math.Max(_turnBegan, _lastCall) >= Math.Max(_price, s_short) * MostPrices;
}

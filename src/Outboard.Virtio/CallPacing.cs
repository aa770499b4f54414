// When a driver is called while requests are still being served.
//
// Calling early lets a driver on another CPU work beside us. But a call that wakes a sleeping CPU costs the caller as
// much as several requests (5 to 9 us in a virtual machine), while a driver that is awake costs nearly nothing to call.
// So the price is measured, call by call. An early call is let through in two cases:
//   - requests are so short that a whole burst of them is served within one wake-up (packets, memory): the sooner the
//     driver is called, the sooner it is awake, and it finds the burst done;
//   - a multiple of the price has passed since the last call, so that calls take a bounded share of the time.
// The call at the end of a turn is never held back. All times are ticks of one clock.
namespace Outboard.Virtio;

/// <summary>Decides whether a call before the end of a turn pays. Used by one thread.</summary>
internal struct CallPacing
{
    /// <summary>While requests are long, early calls come at least this many prices after the last call.</summary>
    internal const int TimesPrice = 3;

    /// <summary>Requests that a driver typically has outstanding.</summary>
    internal const int Burst = 32;

    /// <summary>Weight of the newest figure in a running mean: 1 / 2^this.</summary>
    private const int MeanShift = 2;

    private long _price;
    private long _lastCall;
    private long _turnBegan;
    private long _burstTicks;

    /// <summary>A turn begins.</summary>
    internal void OnTurn(long now) => _turnBegan = now;

    /// <summary>The turn is over; this many requests were served, more than none.</summary>
    internal void OnTurnEnd(long now, int served)
    {
        long ticks = (now - _turnBegan) * Burst / served;
        _burstTicks += (ticks - _burstTicks) >> MeanShift;
    }

    /// <summary>The driver was called, which took from <paramref name="before"/> to <paramref name="after"/>.</summary>
    internal void OnCall(long before, long after)
    {
        _price += (after - before - _price) >> MeanShift;
        _lastCall = after;
        // a turn is charged with its requests only
        _turnBegan += after - before;
    }

    /// <summary>Whether a call may be made now, although more requests may be waiting.</summary>
    internal readonly bool PaysAt(long now) => _burstTicks <= _price || now - _lastCall >= _price * TimesPrice;
}

// Time that passes when a test says so.
namespace Outboard.Tests.VirtioVhostUser;

/// <summary>Timers that end by hand, each once. From any thread.</summary>
internal sealed class ManualClock : TimeProvider
{
    private readonly Lock _lock = new();
    private readonly List<Action> _timers = [];

    /// <summary>Timers so far.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _timers.Count;
            }
        }
    }

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        lock (_lock)
        {
            _timers.Add(() => callback(state));
            return new Idle();
        }
    }

    /// <summary>Ends one of them.</summary>
    public void Fire(int timer)
    {
        Action fire;
        lock (_lock)
        {
            fire = _timers[timer];
        }

        fire();
    }

    private sealed class Idle : ITimer
    {
        public bool Change(TimeSpan dueTime, TimeSpan period) => true;

        public void Dispose()
        {
        }

        public ValueTask DisposeAsync() => default;
    }
}

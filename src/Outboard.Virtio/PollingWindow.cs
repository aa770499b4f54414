// How long a worker looks for work before it sleeps. The window grows while sleeps turn out to be short (looking a
// little longer would have saved a wake-up), and shrinks while they are long (looking was a waste).
//
// A driver that shares the CPU with the worker cannot run while the worker looks: the window passes in vain, and the
// sleep after it is very short. A few of those in a row switch looking off for a while.
//
// A window without end (busy polling) never closes while there is a queue to look at.
using System.Diagnostics;

namespace Outboard.Virtio;

/// <summary>Decides between looking again and sleeping. Used by one thread.</summary>
public sealed class PollingWindow
{
    /// <summary>Window after the first short sleep.</summary>
    private const long FirstWindowNs = 5_000;

    /// <summary>What the wake-up itself may take, of a sleep that counts as short.</summary>
    private const long WakeUpNs = 50_000;

    /// <summary>Looks between two readings of the clock.</summary>
    private const int LooksPerClock = 16;

    /// <summary>Windows in vain, each followed by a short sleep, that switch looking off.</summary>
    private const int VainLimit = 4;

    /// <summary>Sleeps after which looking is tried again.</summary>
    private const int SleepsWhileOff = 2000;

    private readonly long _maxNs;
    private readonly bool _isEndless;
    private long _windowNs;
    private long _since;
    private int _looks;
    private int _vain;
    private int _off;
    private bool _lookedInVain;

    /// <summary>Begins with no window.</summary>
    /// <param name="max">The longest window; zero never looks again, Timeout.InfiniteTimeSpan always does.</param>
    public PollingWindow(TimeSpan max)
    {
        _isEndless = max == Timeout.InfiniteTimeSpan;
        _maxNs = (long)max.TotalNanoseconds;
    }

    /// <summary>The current window, for tests and measurements.</summary>
    internal long WindowNs => _windowNs;

    /// <summary>Whether looking finds work, which means that the driver runs on another CPU.</summary>
    public bool IsPaying => _isEndless || (_windowNs > 0 && _off == 0);

    /// <summary>Work was found: the window begins anew.</summary>
    public void OnWork()
    {
        if (_looks > 0)
        {
            _vain = 0;
        }

        _since = 0;
        _looks = 0;
    }

    /// <summary>Nothing was found: whether to look again rather than to sleep.</summary>
    /// <param name="hasQueues">Whether there is a queue to look at.</param>
    public bool ShouldLookAgain(bool hasQueues)
    {
        if (_isEndless)
        {
            Thread.SpinWait(1);
            return hasQueues;
        }

        if (_windowNs == 0 || _off > 0)
        {
            return false;
        }

        Thread.SpinWait(1);
        if (++_looks % LooksPerClock != 0)
        {
            return true;
        }

        long now = Stopwatch.GetTimestamp();
        _since = _since == 0 ? now : _since;
        if (Stopwatch.GetElapsedTime(_since, now).TotalNanoseconds < _windowNs)
        {
            return true;
        }

        _lookedInVain = true;
        _since = 0;
        _looks = 0;
        return false;
    }

    /// <summary>The worker slept for this long.</summary>
    public void OnSlept(TimeSpan slept)
    {
        if (_isEndless)
        {
            return;
        }

        long ns = (long)slept.TotalNanoseconds;
        _off = Math.Max(0, _off - 1);
        if (_lookedInVain && ns < _windowNs / 2)
        {
            if (++_vain >= VainLimit)
            {
                _vain = 0;
                _off = SleepsWhileOff;
            }
        }
        else if (ns <= _maxNs + WakeUpNs)
        {
            _windowNs = Math.Min(_maxNs, Math.Max(FirstWindowNs, _windowNs * 2));
        }
        else
        {
            _windowNs /= 2;
            _windowNs = _windowNs < FirstWindowNs ? 0 : _windowNs;
        }

        _lookedInVain = false;
        _since = 0;
        _looks = 0;
    }
}

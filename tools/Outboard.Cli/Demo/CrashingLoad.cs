// A verified load on a thread of its own, which is paused while the back-end is dead.
using System.Diagnostics;
using Outboard.Cli.Bench;

namespace Outboard.Cli.Demo;

/// <summary>Runs a verified load until <see cref="Finish"/>; it may be paused with requests in flight.</summary>
internal sealed class CrashingLoad : IDisposable
{
    private readonly VerifyingLoad _load;
    private readonly LoadThreads _threads;
    private readonly SemaphoreSlim _paused = new(0);
    private readonly SemaphoreSlim _resumed = new(0);
    private volatile bool _isFinishing;

    public CrashingLoad(VerifyingLoad load)
    {
        _load = load;
        _threads = new LoadThreads([], [Run]);
    }

    /// <summary>Lets the load run for a time.</summary>
    public void LetRun(TimeSpan time) => _threads.Sleep(time);

    /// <summary>The back-end is dead: waits until the load has taken what it completed.</summary>
    public void Pause()
    {
        _load.Interrupt();
        while (!_paused.Wait(TimeSpan.FromMilliseconds(100)))
        {
            if (_threads.HaveEnded)
            {
                _threads.Join();
                return;
            }
        }
    }

    /// <summary>The rings have been handed to a living back-end.</summary>
    public void Resume()
    {
        _load.Resume();
        _resumed.Release();
    }

    /// <summary>Reads every block once more, and ends.</summary>
    public void Finish()
    {
        _isFinishing = true;
        _threads.Join();
    }

    public void Dispose()
    {
        _threads.Dispose();
        _paused.Dispose();
        _resumed.Dispose();
    }

    private void Run()
    {
        Survive(_load.WriteAll);
        while (!_isFinishing)
        {
            long slice = Stopwatch.GetTimestamp() + (Stopwatch.Frequency / 10);
            Survive(() => _load.MixUntil(slice));
        }

        Survive(_load.ReadAll);
    }

    private void Survive(Func<bool> phase)
    {
        while (!phase())
        {
            _paused.Release();
            _resumed.Wait();
        }
    }
}

// Waiting for completions, in the three ways of WaitMode. A sleep is one epoll_wait on the call eventfd: it is watched
// edge-triggered and never read.
using Outboard.Devices.Block.Driver;
using Outboard.Linux.Events;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Cli.Bench;

/// <summary>Collects a driver's completions. Used by one thread.</summary>
internal sealed class CompletionWait : IDisposable
{
    /// <summary>Longest wait of one call; the caller then looks whether all is well.</summary>
    private const int PatienceMs = 100;

    /// <summary>Looks of one polling call: some 30 ns each.</summary>
    private const int Looks = 1 << 20;

    /// <summary>Completions after which a polling driver repeats that it wants no calls: the index wraps.</summary>
    private const int SuppressInterval = 16384;

    private readonly LoadGate? _gate;
    private readonly DriverQueue _ring;
    private readonly BlockDriver _driver;
    private readonly WaitMode _mode;
    private readonly Epoll _epoll = new();
    private readonly ulong[] _tags = new ulong[1];
    private int _sinceSuppressed;

    public CompletionWait(FrontendQueue queue, BlockDriver driver, WaitMode mode, LoadGate? gate = null)
    {
        _gate = gate;
        _ring = queue.Ring;
        _driver = driver;
        _mode = mode;
        _epoll.Add(queue.Call.Descriptor, 0);
        if (mode == WaitMode.Irq)
        {
            _ = _ring.ArmCalls();
        }
        else
        {
            _ring.SuppressCalls();
        }
    }

    /// <summary>Sleeps so far.</summary>
    public long Sleeps { get; private set; }

    /// <summary>Waits for at least one completion.</summary>
    /// <param name="completions">Room for all requests in flight.</param>
    /// <returns>How many came; 0 after a while without any.</returns>
    public int Collect(Span<BlockCompletion> completions)
    {
        if (_gate is { IsClosed: true } gate)
        {
            // What the dead back-end completed comes first; then the ring is left alone.
            int count = _driver.Collect(completions);
            if (count > 0)
            {
                return count;
            }

            gate.Pass();
        }

        return _mode switch
        {
            WaitMode.Poll => Poll(completions),
            WaitMode.EventFd => SleepWhenEmpty(completions),
            _ => SleepFirst(completions),
        };
    }

    public void Dispose() => _epoll.Dispose();

    private int Poll(Span<BlockCompletion> completions)
    {
        for (int look = 0; look < Looks; look++)
        {
            int count = _driver.Collect(completions);
            if (count > 0)
            {
                _sinceSuppressed += count;
                if (_sinceSuppressed >= SuppressInterval)
                {
                    _sinceSuppressed = 0;
                    _ring.SuppressCalls();
                }

                return count;
            }

            Thread.SpinWait(1);
        }

        return 0;
    }

    private int SleepWhenEmpty(Span<BlockCompletion> completions)
    {
        while (true)
        {
            int count = _driver.Collect(completions);
            if (count > 0)
            {
                return count;
            }

            bool wasCalled = _ring.ArmCalls() || Sleep();
            _ring.SuppressCalls();
            if (!wasCalled)
            {
                return _driver.Collect(completions);
            }
        }
    }

    private int SleepFirst(Span<BlockCompletion> completions)
    {
        while (true)
        {
            bool wasCalled = Sleep();
            int count = _driver.Collect(completions);
            while (_ring.ArmCalls() && count < completions.Length)
            {
                count += _driver.Collect(completions[count..]);
            }

            if (count > 0 || !wasCalled)
            {
                return count;
            }
        }
    }

    private bool Sleep()
    {
        Sleeps++;
        return _epoll.Wait(_tags, PatienceMs) > 0;
    }
}

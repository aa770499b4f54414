// One thread that waits for eventfds and calls back: for signals that arrive seldom and need no latency of their own.
// Not for queues; those have workers.
namespace Outboard.Linux.Events;

/// <summary>Watches eventfds. All members may be called from any thread, also from a callback.</summary>
public sealed class EventWatcher : IDisposable
{
    private const ulong WakeTag = 0;
    private const int EventsAtOnce = 16;

    private readonly Lock _lock = new();
    private readonly Epoll _epoll = new();
    private readonly EventFd _wake = new();
    private readonly Dictionary<ulong, Watch> _watches = [];
    private readonly Thread _thread;
    private ulong _lastTag = WakeTag;
    private volatile bool _stopping;

    /// <summary>Starts the thread.</summary>
    /// <param name="name">The thread's name, as tools show it.</param>
    public EventWatcher(string name)
    {
        _epoll.Add(_wake.Descriptor, WakeTag);
        _thread = new Thread(Run) { Name = name, IsBackground = true };
        _thread.Start();
    }

    /// <summary>Calls back with the eventfd's count whenever it was signalled, until the result is disposed.</summary>
    /// <param name="eventFd">The eventfd; owned by the watch from now on when <paramref name="owns"/> is set, and
    /// in any case not to be disposed before the watch.</param>
    /// <param name="signalled">Called on the watcher's thread; must not throw.</param>
    /// <param name="owns">Whether the watch disposes the eventfd.</param>
    /// <exception cref="LinuxException">The descriptor cannot be waited for.</exception>
    public IDisposable Add(EventFd eventFd, Action<ulong> signalled, bool owns = false)
    {
        ArgumentNullException.ThrowIfNull(eventFd);
        lock (_lock)
        {
            ulong tag = ++_lastTag;
            Watch watch = new(this, tag, eventFd, signalled, owns);
            _epoll.Add(eventFd.Descriptor, tag);
            _watches.Add(tag, watch);
            return watch;
        }
    }

    /// <summary>Ends the thread and all watches.</summary>
    public void Dispose()
    {
        _stopping = true;
        _wake.Signal();
        if (Thread.CurrentThread != _thread)
        {
            _thread.Join();
        }

        foreach (Watch watch in Snapshot())
        {
            watch.Dispose();
        }

        _epoll.Dispose();
        _wake.Dispose();
    }

    private Watch[] Snapshot()
    {
        lock (_lock)
        {
            return [.. _watches.Values];
        }
    }

    private void Run()
    {
        Span<ulong> tags = stackalloc ulong[EventsAtOnce];
        while (!_stopping)
        {
            int count = _epoll.Wait(tags, timeoutMs: -1);
            foreach (ulong tag in tags[..count])
            {
                Report(tag);
            }
        }
    }

    private void Report(ulong tag)
    {
        Action<ulong>? signalled = null;
        ulong value = 0;
        lock (_lock)
        {
            if (_watches.TryGetValue(tag, out Watch? watch))
            {
                value = watch.Event.Take();
                signalled = watch.Signalled;
            }
        }

        if (value != 0)
        {
            signalled?.Invoke(value);
        }
    }

    private void End(Watch watch)
    {
        lock (_lock)
        {
            if (_watches.Remove(watch.Tag))
            {
                _epoll.Remove(watch.Event.Descriptor);
                if (watch.Owns)
                {
                    watch.Event.Dispose();
                }
            }
        }
    }

    private sealed class Watch(EventWatcher watcher, ulong tag, EventFd eventFd, Action<ulong> signalled, bool owns)
        : IDisposable
    {
        internal ulong Tag => tag;

        internal EventFd Event => eventFd;

        internal Action<ulong> Signalled => signalled;

        internal bool Owns => owns;

        public void Dispose() => watcher.End(this);
    }
}

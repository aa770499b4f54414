// Front-ends' kicks for a driver that has notifications apart from queues: one thread waits for all of them. As queues
// do, it never reads an eventfd: it is told once for each signal (edge-triggered), also of what came before.
using System.Collections.Concurrent;
using Outboard.Linux;
using Outboard.Linux.Events;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>Waits for kicks. All members may be called from any thread.</summary>
internal sealed class KickWatch : IDisposable
{
    private const ulong WakeTag = ulong.MaxValue;
    private const int EventsAtOnce = 16;

    private readonly Epoll _epoll = new();
    private readonly EventFd _wake = new();
    private readonly ConcurrentDictionary<int, FileDescriptor> _watched = [];
    private readonly Action<int> _kicked;
    private readonly Thread _thread;
    private volatile bool _isEnding;

    /// <param name="kicked">Called with the ring's number. A kick may be told after its watch has ended.</param>
    internal KickWatch(Action<int> kicked)
    {
        _kicked = kicked;
        _epoll.Add(_wake.Descriptor, WakeTag);
        _thread = new Thread(Run) { Name = "virtio-vhost-user-kicks", IsBackground = true };
        _thread.Start();
    }

    public void Dispose()
    {
        _isEnding = true;
        _wake.Signal();
        _thread.Join();
        foreach (int ring in _watched.Keys)
        {
            End(ring);
        }

        _epoll.Dispose();
        _wake.Dispose();
    }

    /// <summary>Begins to wait. What cannot be waited for never kicks: the front-end has itself to blame.</summary>
    /// <param name="ring">The ring's number.</param>
    /// <param name="kick">What becomes readable; stays the caller's.</param>
    internal void Begin(int ring, FileDescriptor kick)
    {
        End(ring);
        FileDescriptor own = kick.Duplicate();
        try
        {
            _epoll.Add(own, (ulong)ring);
            _watched[ring] = own;
        }
        catch (IOException)
        {
            own.Dispose();
        }
    }

    /// <summary>Ends the wait, if there is one.</summary>
    internal void End(int ring)
    {
        if (_watched.TryRemove(ring, out FileDescriptor? own))
        {
            _epoll.Remove(own);
            own.Dispose();
        }
    }

    private void Run()
    {
        Span<ulong> tags = stackalloc ulong[EventsAtOnce];
        while (!_isEnding)
        {
            int count = _epoll.Wait(tags, timeoutMs: -1);
            foreach (ulong tag in tags[..count])
            {
                if (tag != WakeTag)
                {
                    _kicked((int)tag);
                }
            }
        }
    }
}

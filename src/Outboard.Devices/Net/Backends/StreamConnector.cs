// Gets a stream back-end its connections, one after another, on a thread of its own:
//
//   next: connect (again after a while), or accept  ->  use  ->  wait until it ends  ->  lose  ->  next
//
// It waits for the end alone (EPOLLRDHUP), so packets do not wake it. A peer that is connected to, and ends at once
// each time, is tried ever less often.
using System.Diagnostics;
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Sockets;

namespace Outboard.Devices.Net.Backends;

internal sealed class StreamConnector : IDisposable
{
    private const ulong StopTag = 0;
    private const ulong ConnectionTag = 1;

    private static readonly TimeSpan s_firstDelay = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromSeconds(1);

    private readonly Action<StreamConnection> _use;
    private readonly Action _lose;
    private readonly string? _path;
    private readonly UnixListener? _listener;
    private readonly CancellationTokenSource _ending = new();
    private readonly EventFd _stop = new();
    private readonly Epoll _epoll = new();
    private readonly Thread _thread;
    private TimeSpan _delay = s_firstDelay;

    /// <param name="use">Called with each connection.</param>
    /// <param name="lose">Called when one has ended.</param>
    /// <param name="path">Where to connect; null to listen, or not at all.</param>
    /// <param name="listener">Where to accept; owned by this object from now on.</param>
    internal StreamConnector(Action<StreamConnection> use, Action lose, string? path, UnixListener? listener)
    {
        _use = use;
        _lose = lose;
        _path = path;
        _listener = listener;
        _epoll.Add(_stop.Descriptor, StopTag);
        _thread = new Thread(Run) { IsBackground = true, Name = "stream peer" };
    }

    /// <summary>Begins, with a connection that is there, if one is.</summary>
    internal void Start(UnixSocket? first)
    {
        StreamConnection? connection = first is null ? null : new StreamConnection(first);
        if (connection is not null)
        {
            _use(connection);
        }

        _thread.Start(connection);
    }

    public void Dispose()
    {
        _ending.Cancel();
        _stop.Signal();
        _thread.Join();
        _listener?.Dispose();
        _epoll.Dispose();
        _stop.Dispose();
        _ending.Dispose();
    }

    private void Run(object? first)
    {
        StreamConnection? connection = (StreamConnection?)first;
        try
        {
            while (true)
            {
                if (connection is null)
                {
                    if (Next() is not { } socket)
                    {
                        return;
                    }

                    connection = new StreamConnection(socket);
                    _use(connection);
                }

                WaitForEnd(connection);
                connection.Release();
                connection = null;
                _ending.Token.ThrowIfCancellationRequested();
                _lose();
            }
        }
        catch (OperationCanceledException)
        {
            // Disposed.
        }
    }

    private void WaitForEnd(StreamConnection connection)
    {
        long start = Stopwatch.GetTimestamp();
        _epoll.Add(connection.Stream.Descriptor, ConnectionTag, Readiness.Ended);
        Span<ulong> tags = stackalloc ulong[2];
        while (_epoll.Wait(tags, timeoutMs: -1) == 0)
        {
        }

        _epoll.Remove(connection.Stream.Descriptor);
        if (Stopwatch.GetElapsedTime(start) > s_longestDelay)
        {
            _delay = s_firstDelay;
        }
    }

    /// <summary>Waits for a connection; null when none can come.</summary>
    /// <exception cref="OperationCanceledException">Disposed meanwhile.</exception>
    private UnixSocket? Next()
    {
        if (_listener is not null)
        {
            return Accept(_listener);
        }

        while (_path is not null)
        {
            _ending.Token.WaitHandle.WaitOne(_delay);
            _ending.Token.ThrowIfCancellationRequested();
            _delay = _delay * 2 < s_longestDelay ? _delay * 2 : s_longestDelay;
            try
            {
                return UnixSocket.ConnectAsync(_path, _ending.Token).GetAwaiter().GetResult();
            }
            catch (SocketException)
            {
                // Not there yet.
            }
        }

        return null;
    }

    private UnixSocket Accept(UnixListener listener)
    {
        while (true)
        {
            try
            {
                return listener.AcceptAsync(_ending.Token).GetAwaiter().GetResult();
            }
            catch (Exception error) when (error is SocketException or LinuxException)
            {
                // One that went away at once, or too many descriptors are open; neither ends the listening.
                _ending.Token.WaitHandle.WaitOne(s_firstDelay);
                _ending.Token.ThrowIfCancellationRequested();
            }
        }
    }
}

// Where connections come from. Either half of the protocol may be the one that listens, so both take their channels
// from here: one after another, each when it is there.
using System.Diagnostics;
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.VhostUser.Channel;

/// <summary>Gives channels to one peer after another, or to the same one again. Used by one caller at a time.</summary>
public abstract class ChannelSource : IDisposable
{
    /// <summary>What it is, for messages.</summary>
    public abstract string Description { get; }

    /// <summary>A source that connects to a socket, and tries again while nobody listens there.</summary>
    /// <param name="path">The peer's socket.</param>
    /// <param name="delays">How long to wait between two attempts.</param>
    public static ChannelSource Connect(string path, BackOff? delays = null) =>
        new ConnectingSource(path, delays ?? new BackOff());

    /// <summary>A source that listens on a socket and accepts.</summary>
    /// <exception cref="IOException">The path cannot be bound.</exception>
    public static ChannelSource Listen(string path) =>
        new ListeningSource(UnixListener.Bind(path), path, ownsListener: true);

    /// <summary>A source that accepts on a socket that listens already, which stays the caller's.</summary>
    public static ChannelSource Accept(UnixListener listener) =>
        new ListeningSource(listener, "a listening socket", ownsListener: false);

    /// <summary>Waits for the next connection.</summary>
    /// <param name="patience">How long; there is one attempt at least.
    /// <see cref="Timeout.InfiniteTimeSpan"/> waits for ever.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="IOException">Nobody was there in time, or the socket itself cannot be used.</exception>
    public abstract Task<VhostUserChannel> NextAsync(TimeSpan patience, CancellationToken cancellation = default);

    /// <inheritdoc/>
    public abstract void Dispose();

    private sealed class ListeningSource(UnixListener listener, string path, bool ownsListener) : ChannelSource
    {
        public override string Description => path;

        public override async Task<VhostUserChannel> NextAsync(
            TimeSpan patience, CancellationToken cancellation = default)
        {
            using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(patience);
            try
            {
                return new SocketChannel(await listener.AcceptAsync(limit.Token).ConfigureAwait(false));
            }
            catch (OperationCanceledException error) when (!cancellation.IsCancellationRequested)
            {
                throw new IOException($"{path}: nobody connected within {patience.TotalSeconds:F1} s", error);
            }
        }

        public override void Dispose()
        {
            if (ownsListener)
            {
                listener.Dispose();
            }
        }
    }

    private sealed class ConnectingSource(string path, BackOff delays) : ChannelSource
    {
        private long _lastConnect;

        public override string Description => $"{path}, where the peer listens";

        /// <remarks>
        /// A peer that accepts and hangs up at once, as one does whose only place is taken, is spared like one that is
        /// away: the delays begin anew only after a connection that lasted.
        /// </remarks>
        public override async Task<VhostUserChannel> NextAsync(
            TimeSpan patience, CancellationToken cancellation = default)
        {
            long start = Stopwatch.GetTimestamp();
            if (_lastConnect != 0 && Stopwatch.GetElapsedTime(_lastConnect) < delays.Longest)
            {
                await Task.Delay(delays.Next(), cancellation).ConfigureAwait(false);
            }
            else
            {
                delays.Reset();
            }

            while (true)
            {
                try
                {
                    UnixSocket socket = await UnixSocket.ConnectAsync(path, cancellation).ConfigureAwait(false);
                    _lastConnect = Stopwatch.GetTimestamp();
                    return new SocketChannel(socket);
                }
                catch (SocketException error)
                {
                    TimeSpan delay = delays.Next();
                    bool hasTime = patience < TimeSpan.Zero || Stopwatch.GetElapsedTime(start) + delay < patience;
                    if (!hasTime || !IsAway(error.NativeErrorCode))
                    {
                        throw new LinuxException("connect", error.NativeErrorCode, path);
                    }

                    await Task.Delay(delay, cancellation).ConfigureAwait(false);
                }
            }
        }

        public override void Dispose()
        {
        }

        /// <summary>No socket yet, nobody behind it, or too many waiting before us.</summary>
        private static bool IsAway(int errno) =>
            errno is Errno.NoEntry or Errno.AddressNotAvailable or Errno.ConnectionRefused or Errno.TryAgain
                or Errno.ConnectionReset;
    }
}

/// <summary>Growing delays between attempts: each twice the one before, up to the longest.</summary>
public sealed class BackOff
{
    private TimeSpan _next;

    /// <summary>Begins with the first delay.</summary>
    public BackOff()
        : this(TimeSpan.FromMilliseconds(10), TimeSpan.FromSeconds(1))
    {
    }

    /// <summary>Begins with the first delay.</summary>
    /// <param name="first">The first delay, not zero.</param>
    /// <param name="longest">No delay is longer.</param>
    public BackOff(TimeSpan first, TimeSpan longest)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(first, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfLessThan(longest, first);
        First = first;
        Longest = longest;
        _next = first;
    }

    /// <summary>The first delay.</summary>
    public TimeSpan First { get; }

    /// <summary>The longest delay.</summary>
    public TimeSpan Longest { get; }

    /// <summary>The delay before the next attempt.</summary>
    public TimeSpan Next()
    {
        TimeSpan now = _next;
        _next = now * 2 < Longest ? now * 2 : Longest;
        return now;
    }

    /// <summary>Begins anew.</summary>
    public void Reset() => _next = First;
}

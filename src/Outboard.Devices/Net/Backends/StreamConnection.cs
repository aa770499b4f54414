// One connection to a stream peer, shared by three: the receiving half, the sending half, and whoever waits for its
// end. The last one to let go closes it.
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.Devices.Net.Backends;

/// <summary>A connection, counted.</summary>
internal sealed class StreamConnection(UnixSocket socket)
{
    private int _users = 1;

    /// <summary>Its bytes.</summary>
    internal PacketDescriptor Stream { get; } = new(socket.DuplicateDescriptor());

    /// <summary>One user more.</summary>
    internal StreamConnection Share()
    {
        Interlocked.Increment(ref _users);
        return this;
    }

    /// <summary>One user less.</summary>
    internal void Release()
    {
        if (Interlocked.Decrement(ref _users) == 0)
        {
            Stream.Dispose();
            socket.Dispose();
        }
    }

    /// <summary>Nothing is sent or received any more: the peer has lost its place in the stream.</summary>
    internal void End() => socket.Shutdown();
}

/// <summary>Where a half of the back-end finds its connection: set by any thread, taken by the half's own.</summary>
internal struct ConnectionSlot
{
    private StreamConnection? _next;

    /// <summary>The connection in use; null before the first.</summary>
    internal StreamConnection? Current { get; private set; }

    /// <summary>Leaves a connection to be taken; one that was left there before is let go.</summary>
    internal void Offer(StreamConnection connection) =>
        Interlocked.Exchange(ref _next, connection.Share())?.Release();

    /// <summary>Goes over to what was offered.</summary>
    /// <returns>False when nothing was.</returns>
    internal bool TryTake()
    {
        if (Interlocked.Exchange(ref _next, null) is not { } next)
        {
            return false;
        }

        Current?.Release();
        Current = next;
        return true;
    }

    internal void Clear()
    {
        TryTake();
        Current?.Release();
        Current = null;
    }
}

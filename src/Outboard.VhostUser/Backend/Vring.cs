// What the front-end has told about one ring, and the queue that serves it while it runs.
//
// Two independent states, vhost-user "Ring states": a ring is stopped or started, and enabled or disabled. Started
// means that it has been handed to a worker and that a kick was seen (or that the front-end enabled it: requests may
// be there already, whose kick went to an earlier back-end). GET_VRING_BASE stops it.
using Outboard.Virtio;

namespace Outboard.VhostUser.Backend;

/// <summary>One ring of a session.</summary>
internal sealed class Vring(int index) : IDisposable
{
    private readonly Lock _errorLock = new();
    private Notifier? _error;

    internal int Index { get; } = index;

    /// <summary>Queue size; 0 until SET_VRING_NUM.</summary>
    internal int Size { get; set; }

    /// <summary>The front-end's addresses; null until SET_VRING_ADDR.</summary>
    internal VringUserAddresses? Addresses { get; set; }

    /// <summary>Where writes to the ring are logged, in the log's address space; null when they are not.</summary>
    internal ulong? LogAddress { get; set; }

    /// <summary>Where the device goes on (see VringSetup.Base), from SET_VRING_BASE or from the last stop.</summary>
    internal uint? Base { get; set; }

    /// <summary>Whether SET_VRING_KICK was given, with or without a descriptor.</summary>
    internal bool HasKick { get; set; }

    /// <summary>The kick notifier until the ring is handed to a worker.</summary>
    internal Notifier? Kick { get; set; }

    /// <summary>The call notifier until the ring is handed to a worker.</summary>
    internal Notifier? Call { get; set; }

    internal bool IsEnabled { get; set; }

    /// <summary>Whether the driver broke it since it was started. Set by its thread.</summary>
    internal volatile bool IsBroken;

    /// <summary>Whether it was enabled by a message, so that it is looked at without a kick.</summary>
    internal bool StartsEnabled { get; set; }

    /// <summary>The queue, while it runs.</summary>
    internal RunningQueue? Running { get; set; }

    /// <summary>Whether everything that a worker needs has been told.</summary>
    internal bool IsComplete => Size != 0 && Addresses is not null && HasKick;

    /// <summary>
    /// Forgets kick and call, as GET_VRING_BASE asks. The error notifier stays: QEMU sends it once only.
    /// </summary>
    internal void DropNotifiers()
    {
        Kick?.Dispose();
        Call?.Dispose();
        Kick = null;
        Call = null;
        HasKick = false;
    }

    /// <summary>Sets the error notifier and disposes the one before.</summary>
    internal void ReplaceError(Notifier? notifier)
    {
        lock (_errorLock)
        {
            _error?.Dispose();
            _error = notifier;
        }
    }

    /// <summary>Tells the front-end that the ring is broken. From any thread.</summary>
    internal void SignalError()
    {
        lock (_errorLock)
        {
            _error?.Signal();
        }
    }

    public void Dispose()
    {
        DropNotifiers();
        ReplaceError(null);
    }
}

/// <summary>Ring addresses in the front-end's address space.</summary>
internal readonly record struct VringUserAddresses(ulong Descriptors, ulong Available, ulong Used);

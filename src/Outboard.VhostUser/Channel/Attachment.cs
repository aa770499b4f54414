// What comes with a message besides bytes. A session asks for what it needs: a shared memory object, a notifier, a
// channel; only the channel that received it knows what it is made of (a descriptor, a window, a doorbell).
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.VhostUser.Channel;

/// <summary>
/// Something that came with a message. Each conversion hands ownership over; what is not converted is disposed.
/// </summary>
public abstract class Attachment : IDisposable
{
    /// <summary>As shared memory.</summary>
    public abstract SharedMemory ToSharedMemory();

    /// <summary>As a notifier.</summary>
    public abstract Notifier ToNotifier();

    /// <summary>As a channel for messages in the other direction.</summary>
    public abstract VhostUserChannel ToChannel();

    /// <summary>As faults of the peer's process, for this one to resolve.</summary>
    /// <exception cref="IOException">This kind of attachment cannot be that.</exception>
    public virtual UserFaults ToUserFaults() => throw new IOException("page faults cannot be passed on this channel");

    /// <summary>As one end of a stream of bytes.</summary>
    public abstract StateStream ToStateStream();

    /// <summary>As a connection to a display.</summary>
    public abstract DisplayConnection ToDisplay();

    /// <inheritdoc/>
    public abstract void Dispose();
}

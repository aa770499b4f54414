// The seam between a session and what carries its messages: a UNIX socket, or a virtio device inside a guest.
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.VhostUser.Channel;

/// <summary>Carries messages with their attachments. One reader and one writer at a time.</summary>
public abstract class VhostUserChannel : IAsyncDisposable
{
    /// <summary>Waits for the next message.</summary>
    /// <returns>The message, to be disposed by the caller; null when the peer has closed the channel.</returns>
    /// <exception cref="Protocol.ProtocolException">What arrived is no message; the channel is unusable.</exception>
    /// <exception cref="IOException">The channel failed.</exception>
    public abstract ValueTask<VhostUserMessage?> ReceiveAsync(CancellationToken cancellation = default);

    /// <summary>Waits until the peer has closed the channel, without taking anything from it.</summary>
    public abstract Task WaitForCloseAsync(CancellationToken cancellation = default);

    /// <summary>Sends a message and disposes it.</summary>
    /// <exception cref="IOException">The channel failed.</exception>
    public abstract ValueTask SendAsync(VhostUserMessage message, CancellationToken cancellation = default);

    /// <summary>
    /// Makes shared memory that can be attached to a message on this channel: zero bytes, of fixed size.
    /// </summary>
    public abstract SharedMemory CreateSharedMemory(string name, ulong sizeBytes);

    /// <summary>
    /// Makes an attachment of shared memory that <see cref="CreateSharedMemory"/> made; the memory stays the caller's.
    /// </summary>
    public abstract Attachment Attach(SharedMemory memory);

    /// <summary>
    /// Makes an attachment by which the peer resolves faults of this process; they stay the caller's.
    /// </summary>
    /// <exception cref="IOException">This kind of channel cannot carry them.</exception>
    public virtual Attachment Attach(UserFaults faults) =>
        throw new IOException("page faults cannot be passed on this channel");

    /// <summary>Makes a stream of bytes to the peer, or from it.</summary>
    /// <param name="peerWrites">Whether the peer sends; otherwise it receives.</param>
    /// <returns>This side's end, and the other one as an attachment.</returns>
    public abstract (StateStream Kept, Attachment Passed) CreateStateStream(bool peerWrites);

    /// <summary>Whether the peer has gone away: what it sent before may still be received.</summary>
    public virtual bool HasEnded => false;

    /// <summary>Ends the channel, so that a pending receive returns null. May be called from any thread.</summary>
    public abstract void Close();

    /// <inheritdoc/>
    public abstract ValueTask DisposeAsync();
}

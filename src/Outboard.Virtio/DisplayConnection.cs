// The way from a GPU device to the display that shows what it draws. The display belongs to the machine's front-end;
// requests go from the device to the display, each with a number, a payload and perhaps memory of a picture. What
// carries them is the transport's business.
using Outboard.Memory;

namespace Outboard.Virtio;

/// <summary>A message on a display connection.</summary>
/// <param name="Request">The request's number.</param>
/// <param name="IsReply">Whether it answers a request of that number.</param>
/// <param name="Payload">The payload.</param>
/// <param name="Picture">Memory that came with it, owned by whoever receives the message.</param>
public sealed record DisplayMessage(
    uint Request, bool IsReply, ReadOnlyMemory<byte> Payload, SharedMemory? Picture = null) : IDisposable
{
    /// <summary>Lets go of the memory that came with it.</summary>
    public void Dispose() => Picture?.Dispose();
}

/// <summary>A connection between a device and a display. One sender and one receiver at a time.</summary>
public abstract class DisplayConnection : IAsyncDisposable
{
    /// <summary>Sends a message; memory in it stays the caller's.</summary>
    /// <exception cref="IOException">The connection has ended.</exception>
    public abstract ValueTask SendAsync(DisplayMessage message, CancellationToken cancellation = default);

    /// <summary>Waits for a message.</summary>
    /// <returns>Null when the other side has ended the connection.</returns>
    /// <exception cref="IOException">What came is no message.</exception>
    public abstract ValueTask<DisplayMessage?> ReceiveAsync(CancellationToken cancellation = default);

    /// <inheritdoc/>
    public abstract ValueTask DisposeAsync();
}

/// <summary>A device that draws.</summary>
public interface IDisplayDevice
{
    /// <summary>
    /// Uses a display from now on, instead of the one before; owns the connection. On the control loop.
    /// </summary>
    void UseDisplay(DisplayConnection connection);
}

// One end of the stream by which a device's state goes from host to host. Only the channel knows what it is made of.
using Outboard.Linux.Files;

namespace Outboard.VhostUser.Channel;

/// <summary>A stream of bytes to or from the front-end. Its transfers go on beside whoever began them.</summary>
public abstract class StateStream : IDisposable
{
    /// <summary>Sends all bytes; the peer sees the end when this is disposed.</summary>
    /// <exception cref="IOException">The peer takes no more.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public abstract Task WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellation);

    /// <summary>Receives until the peer ends the stream.</summary>
    /// <param name="limit">Most bytes to take.</param>
    /// <param name="cancellation">Ends the transfer.</param>
    /// <exception cref="IOException">There are more, or the stream broke.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public abstract Task<byte[]> ReadToEndAsync(int limit, CancellationToken cancellation);

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>A stream behind a file descriptor.</summary>
internal sealed class DescriptorStateStream(ByteStream stream) : StateStream
{
    public override Task WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellation) =>
        stream.WriteAsync(bytes, cancellation);

    public override Task<byte[]> ReadToEndAsync(int limit, CancellationToken cancellation) =>
        stream.ReadToEndAsync(limit, cancellation);

    public override void Dispose() => stream.Dispose();
}

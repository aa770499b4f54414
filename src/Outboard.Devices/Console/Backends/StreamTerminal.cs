// A pseudo terminal or the standard streams as a port's other side.
using Outboard.Linux;
using Outboard.Linux.Files;

namespace Outboard.Devices.Console.Backends;

/// <summary>A terminal as a port's other side.</summary>
/// <param name="stream">The terminal; belongs to this object.</param>
public sealed class StreamTerminal(TerminalStream stream) : ConsoleTerminal
{
    /// <inheritdoc/>
    public override string Description => stream.Name;

    /// <inheritdoc/>
    public override FileDescriptor? Waitable => stream.CanWait ? stream.Input : null;

    /// <inheritdoc/>
    public override int TryRead(Span<byte> destination) => stream.TryRead(destination);

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<IoSegment> output)
    {
        foreach (ref readonly IoSegment segment in output)
        {
            for (long done = 0; done < segment.Length;)
            {
                int written = stream.TryWrite(segment.Slice(done, segment.Length - done));
                if (written <= 0)
                {
                    return;
                }

                done += written;
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        stream.Dispose();
        base.Dispose();
    }
}

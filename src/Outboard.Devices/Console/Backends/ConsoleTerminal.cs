// Where a port's output is seen and its input comes from, beside a log. Output that nobody takes is dropped: a guest
// does not wait for people.
using Outboard.Linux;

namespace Outboard.Devices.Console.Backends;

/// <summary>A port's other side. Reading and writing may happen on two threads.</summary>
public abstract class ConsoleTerminal : IDisposable
{
    /// <summary>Raised, on any thread, when there is input; for sides without <see cref="Waitable"/>.</summary>
    public event Action? InputArrived;

    /// <summary>What it is, for logs.</summary>
    public abstract string Description { get; }

    /// <summary>Becomes readable when there is input; null when <see cref="InputArrived"/> tells.</summary>
    public abstract FileDescriptor? Waitable { get; }

    /// <summary>Reads what is there.</summary>
    /// <returns>Bytes; 0 at the end of all input; a negative errno, TryAgain when nothing is there now.</returns>
    public abstract int TryRead(Span<byte> destination);

    /// <summary>Writes what there is room for, and drops the rest.</summary>
    public abstract void Write(ReadOnlySpan<IoSegment> output);

    /// <inheritdoc/>
    public virtual void Dispose() => GC.SuppressFinalize(this);

    /// <summary>Tells that there is input.</summary>
    protected void TellInput() => InputArrived?.Invoke();
}

// Moving a function's state to another process, as VFIO's migration version 2 has it: states and a stream of bytes.
// The transport walks the state machine, a function carries out single steps.
namespace Outboard.Pci;

/// <summary>Migration states, numbered as VFIO numbers them.</summary>
public enum MigrationState : uint
{
    /// <summary>A transition failed; only a reset leads out.</summary>
    Error = 0,

    /// <summary>Stopped: nothing changes.</summary>
    Stop = 1,

    /// <summary>Works.</summary>
    Running = 2,

    /// <summary>Stopped, and the stream is read.</summary>
    StopCopy = 3,

    /// <summary>Stopped, and a stream is written.</summary>
    Resuming = 4,

    /// <summary>Works, and the stream is read.</summary>
    PreCopy = 6,
}

/// <summary>The migration of a function. Called by one thread at a time, on the transport's control loop.</summary>
public abstract class PciMigration
{
    /// <summary>Whether <see cref="MigrationState.PreCopy"/> is there.</summary>
    public virtual bool HasPreCopy => false;

    /// <summary>Takes one step; never called for a step that the state machine does not have.</summary>
    /// <exception cref="MigrationException">The step failed.</exception>
    public abstract ValueTask EnterAsync(MigrationState previous, MigrationState state);

    /// <summary>A step failed: the state is Error now, until a reset.</summary>
    public virtual void OnFailed()
    {
    }

    /// <summary>Gives the next bytes of the stream.</summary>
    /// <returns>Bytes; fewer than asked for at the end (in PreCopy: for now).</returns>
    /// <exception cref="MigrationException">The stream cannot be read.</exception>
    public abstract int ReadData(Span<byte> destination);

    /// <summary>Takes the next bytes of a stream.</summary>
    /// <exception cref="MigrationException">The stream is bad.</exception>
    public abstract void WriteData(ReadOnlySpan<byte> source);
}

/// <summary>A step of a migration failed.</summary>
public sealed class MigrationException(int errno, string? reason = null)
    : Exception(reason ?? $"migration: errno {errno}")
{
    /// <summary>The error number for the client.</summary>
    public int Errno { get; } = errno;
}

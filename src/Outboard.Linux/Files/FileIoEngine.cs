// (interim) the shape of the asynchronous file I/O engine
namespace Outboard.Linux.Files;

/// <summary>A finished operation.</summary>
public readonly record struct FileCompletion(ulong Tag, int Result);

/// <summary>Which engine to use.</summary>
public enum FileIoEngineKind
{
    /// <summary>io_uring, else threads.</summary>
    Automatic,

    /// <summary>io_uring or an error.</summary>
    IoUring,

    /// <summary>Threads.</summary>
    Threads,
}

/// <summary>Asynchronous file I/O for one thread.</summary>
public abstract class FileIoEngine : IDisposable
{
    /// <summary>Creates an engine.</summary>
    public static FileIoEngine Create(int depth, FileIoEngineKind kind = FileIoEngineKind.Automatic) =>
        throw new LinuxException("io_uring_setup", Errno.NotImplemented, $"{depth} {kind}");

    /// <summary>Name.</summary>
    public abstract string Name { get; }

    /// <summary>Becomes readable when completions wait.</summary>
    public abstract FileDescriptor CompletionDescriptor { get; }

    /// <summary>Operations in flight.</summary>
    public abstract int InFlight { get; }

    /// <summary>Hands over to the kernel.</summary>
    public abstract void Submit();

    /// <summary>Takes completions.</summary>
    public abstract int Reap(Span<FileCompletion> completions);

    /// <inheritdoc/>
    public abstract void Dispose();
}

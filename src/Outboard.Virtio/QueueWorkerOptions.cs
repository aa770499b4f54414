// How a worker behaves.
using Outboard.Linux.Files;

namespace Outboard.Virtio;

/// <summary>How a worker behaves.</summary>
public sealed record QueueWorkerOptions
{
    /// <summary>
    /// Longest time that a worker looks for work before it sleeps; zero never polls, and
    /// <see cref="Timeout.InfiniteTimeSpan"/> polls without end while rings are there.
    /// </summary>
    public TimeSpan MaxPolling { get; init; } = TimeSpan.FromMicroseconds(50);

    /// <summary>The engine for asynchronous file I/O.</summary>
    public FileIoEngineKind FileEngine { get; init; } = FileIoEngineKind.Automatic;

    /// <summary>File operations that one worker may have in flight.</summary>
    public int FileDepth { get; init; } = 256;

    /// <summary>Called once, on the worker's thread, before it serves; for placement on a CPU.</summary>
    public Action? OnThreadStart { get; init; }
}

// A shared memory object as a session sees it: something that can be mapped. Where it comes from is the channel's
// business: a file descriptor on a socket, a window of a PCI BAR inside a guest.
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Memory;

/// <summary>A shared memory object that a peer offered. Disposing gives it up; mappings of it live on.</summary>
public abstract class SharedMemory : IDisposable
{
    /// <summary>Size of the object in bytes; 0 when it cannot be told.</summary>
    public abstract ulong SizeBytes { get; }

    /// <summary>Which object it is, however often it was passed: pieces of the same one can be joined.</summary>
    public abstract FileIdentity Identity { get; }

    /// <summary>Maps a part of the object.</summary>
    /// <param name="offset">First byte; any alignment.</param>
    /// <param name="length">Bytes, not 0.</param>
    /// <param name="writable">Whether the mapping may be written.</param>
    /// <exception cref="IOException">The object is smaller than that, or cannot be mapped.</exception>
    public abstract MemoryMapping Map(ulong offset, ulong length, bool writable = true);

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>A shared memory object behind a file descriptor.</summary>
public sealed class FileSharedMemory : SharedMemory
{
    private readonly FileDescriptor _descriptor;

    /// <summary>Takes ownership of the descriptor of a mappable file.</summary>
    public FileSharedMemory(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        _descriptor = descriptor;
    }

    /// <summary>The descriptor, owned by this object.</summary>
    public FileDescriptor Descriptor => _descriptor;

    /// <inheritdoc/>
    public override ulong SizeBytes => _descriptor.FileSizeBytes;

    /// <inheritdoc/>
    public override FileIdentity Identity => _descriptor.Identity;

    /// <inheritdoc/>
    public override MemoryMapping Map(ulong offset, ulong length, bool writable = true) =>
        MemoryMapping.Map(_descriptor, offset, length, writable);

    /// <inheritdoc/>
    public override void Dispose() => _descriptor.Dispose();
}

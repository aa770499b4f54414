// Memory of the device behind a BAR, or a part of one: shared, so that a client can map it.
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Pci.Bars;

/// <summary>Zeroed shared memory of a device. It is part of the device: it lives as long as its BAR.</summary>
public sealed class BarMemory : IDisposable
{
    private readonly MemoryMapping _mapping;

    /// <summary>Makes the memory.</summary>
    /// <param name="name">Shown in /proc/PID/maps.</param>
    /// <param name="sizeBytes">Bytes, a multiple of the page size when clients are to map it.</param>
    /// <param name="offset">Where it begins in the shared object; a multiple of the page size.</param>
    public BarMemory(string name, uint sizeBytes, uint offset = 0)
    {
        Object = new FileSharedMemory(MemFd.Create(name, (ulong)offset + sizeBytes));
        Offset = offset;
        _mapping = Object.Map(offset, sizeBytes);
        Window = MemoryWindow.Of(_mapping);
    }

    /// <summary>The object that clients map.</summary>
    public FileSharedMemory Object { get; }

    /// <summary>Where this memory begins in <see cref="Object"/>.</summary>
    public uint Offset { get; }

    /// <summary>The memory. A client may change it at any time.</summary>
    public MemoryWindow Window { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        _mapping.Dispose();
        Object.Dispose();
    }
}

// A base address register and what lies behind it. Sizing needs no code: the register's low bits are not writable, so
// all ones read back as the size.
using System.Numerics;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Bars;

/// <summary>What kind of space a BAR claims.</summary>
public enum PciBarKind
{
    /// <summary>Memory below 4 GiB.</summary>
    Memory32,

    /// <summary>Memory anywhere; takes two registers.</summary>
    Memory64,

    /// <summary>I/O ports.</summary>
    Io,
}

/// <summary>A part of a BAR that clients may map.</summary>
/// <param name="Offset">Offset in the BAR, a multiple of the page size.</param>
/// <param name="SizeBytes">Bytes, a multiple of the page size.</param>
public readonly record struct BarArea(ulong Offset, ulong SizeBytes);

/// <summary>A file of which clients may map parts of a BAR.</summary>
/// <param name="Object">The file. It is the BAR's maker's, and lives as long as the BAR.</param>
/// <param name="Offset">Where the BAR begins in it; a multiple of the page size.</param>
public sealed record BarFile(FileSharedMemory Object, ulong Offset);

/// <summary>A BAR.</summary>
/// <remarks>
/// Without <see cref="Memory"/> accesses go to the function's ReadBar and WriteBar. With it they go to that memory, of
/// the BAR's whole size; clients map <see cref="MappableAreas"/>, and do without messages there. A function that
/// answers accesses can let clients map parts of a <see cref="File"/>, if its answers are what stands there.
/// </remarks>
public sealed class PciBar
{
    /// <summary>Number of BARs of a function.</summary>
    public const int Count = 6;

    /// <summary>Describes a BAR.</summary>
    /// <param name="index">0 to 5; a 64-bit one is at an even index and takes the next one, too.</param>
    /// <param name="kind">What it claims.</param>
    /// <param name="sizeBytes">A power of two: 16 or more for memory, 4 or more for ports.</param>
    /// <param name="isPrefetchable">Reads have no side effects (memory only).</param>
    public PciBar(int index, PciBarKind kind, ulong sizeBytes, bool isPrefetchable = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
        if (kind == PciBarKind.Memory64 && index % 2 != 0)
        {
            throw new ArgumentException($"BAR {index}: a 64-bit BAR begins at an even index", nameof(index));
        }

        ulong smallest = kind == PciBarKind.Io ? 4UL : 16;
        ulong largest = kind switch { PciBarKind.Io => 256, PciBarKind.Memory32 => 1UL << 31, _ => 1UL << 63 };
        if (!BitOperations.IsPow2(sizeBytes) || sizeBytes < smallest || sizeBytes > largest)
        {
            throw new ArgumentOutOfRangeException(
                nameof(sizeBytes), sizeBytes, $"a power of two from {smallest} to {largest}");
        }

        Index = index;
        Kind = kind;
        SizeBytes = sizeBytes;
        IsPrefetchable = isPrefetchable && kind != PciBarKind.Io;
    }

    /// <summary>Index, 0 to 5.</summary>
    public int Index { get; }

    /// <summary>What it claims.</summary>
    public PciBarKind Kind { get; }

    /// <summary>Bytes.</summary>
    public ulong SizeBytes { get; }

    /// <summary>Whether reads have no side effects.</summary>
    public bool IsPrefetchable { get; }

    /// <summary>The memory behind the BAR; null when the function answers accesses.</summary>
    public BarMemory? Memory { get; init; }

    /// <summary>What clients map in place of <see cref="Memory"/>; null for that memory, or nothing.</summary>
    public BarFile? File { get; init; }

    /// <summary>
    /// What a function answers accesses from that maps memory into a BAR, and out of it, while it is in use: a driver
    /// in the same process may use it directly. It may be smaller than the BAR. Null for a BAR of another kind.
    /// </summary>
    public AddressWindow? Window { get; init; }

    /// <summary>What clients may map; empty for nothing.</summary>
    public IReadOnlyList<BarArea> MappableAreas { get; init; } = [];

    /// <summary>The doorbells that clients may ring without a message.</summary>
    public IReadOnlyList<PciDoorbell> Doorbells { get; init; } = [];

    /// <summary>What clients can map; null for nothing.</summary>
    public BarFile? Mappable => MappableAreas.Count == 0 ? null
        : File ?? (Memory is { } memory ? new BarFile(memory.Object, memory.Offset) : null);

    /// <summary>The BAR's registers: type bits, and the address bits that a guest may write.</summary>
    internal void PlaceIn(PciConfigSpace config)
    {
        int offset = PciRegister.Bar0 + (Index * sizeof(uint));
        uint type = Kind switch { PciBarKind.Io => 1u, PciBarKind.Memory64 => 4u, _ => 0u };
        type |= IsPrefetchable ? 8u : 0;
        int width = Kind == PciBarKind.Memory64 ? sizeof(ulong) : sizeof(uint);
        config.Set(offset, type, width);
        config.AllowWrites(offset, ~(SizeBytes - 1), width);
    }
}

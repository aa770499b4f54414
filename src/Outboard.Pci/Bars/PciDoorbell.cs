// A doorbell: a place in a BAR whose writes are only news. A client that can has writes there signal an eventfd, with
// no message; all others send the write, and the function signals the eventfd itself. Where the value counts, a
// client leaves it in shared memory first: a shadow.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Memory;

namespace Outboard.Pci.Bars;

/// <summary>Where a client leaves the value that it rings a doorbell with.</summary>
/// <param name="Object">The memory; whoever has the doorbell disposes it.</param>
/// <param name="Offset">Where in it: a multiple of the doorbell's width, which is not 0 then.</param>
public sealed record DoorbellShadow(FileSharedMemory Object, ulong Offset);

/// <summary>A doorbell of a BAR.</summary>
/// <param name="Offset">Offset in the BAR.</param>
/// <param name="SizeBytes">Width of the writes that count: 1, 2, 4 or 8; 0 for any.</param>
/// <param name="Event">What a write signals. The doorbell's maker owns it; several doorbells may share one.</param>
/// <param name="Match">Only writes of this value count; null for all.</param>
public sealed record PciDoorbell(ulong Offset, uint SizeBytes, EventFd Event, ulong? Match = null)
{
    /// <summary>
    /// Where its value is left before the signal; null for a doorbell whose value is of no interest. Clients that know
    /// no shadows ring such a doorbell by messages only.
    /// </summary>
    public DoorbellShadow? Shadow { get; init; }

    /// <summary>Whether a write rings this doorbell.</summary>
    public bool IsRungBy(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != Offset || data.Length > sizeof(ulong) || (SizeBytes != 0 && data.Length != SizeBytes))
        {
            return false;
        }

        if (Match is not { } match)
        {
            return true;
        }

        Span<byte> value = stackalloc byte[sizeof(ulong)];
        value.Clear();
        data.CopyTo(value);
        return BinaryPrimitives.ReadUInt64LittleEndian(value) == match;
    }
}

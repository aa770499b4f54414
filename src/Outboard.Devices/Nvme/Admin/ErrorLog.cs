// The last errors that a driver may ask for. 64 bytes each: 0 count u64, 8 submission queue u16, 10 command u16, 12
// status field u16, 14 where in the command u16, 16 first block u64, 24 namespace u32.
using System.Buffers.Binary;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

/// <summary>The error log. All members may be called from any thread.</summary>
internal sealed class ErrorLog
{
    internal const int EntryBytes = 64;
    internal const int Entries = 16;

    private readonly Lock _lock = new();
    private readonly (ulong Number, int Queue, ushort Command, ushort Status)[] _entries = new (
        ulong, int, ushort, ushort)[Entries];

    private ulong _count;

    /// <summary>Errors since the controller was made.</summary>
    internal ulong Count
    {
        get
        {
            lock (_lock)
            {
                return _count;
            }
        }
    }

    internal void Add(int queue, ushort command, NvmeStatus status)
    {
        lock (_lock)
        {
            _entries[(int)(_count % Entries)] =
                (_count + 1, queue, command, (ushort)(NvmeStatusRules.Field(status) << 1));
            _count++;
        }
    }

    /// <summary>Writes the page, the newest entry first.</summary>
    internal void Write(Span<byte> page)
    {
        lock (_lock)
        {
            for (int i = 0; i < Entries && (ulong)i < _count; i++)
            {
                (ulong number, int queue, ushort command, ushort status) =
                    _entries[(int)((_count - 1 - (ulong)i) % Entries)];
                Span<byte> entry = page.Slice(i * EntryBytes, EntryBytes);
                BinaryPrimitives.WriteUInt64LittleEndian(entry, number);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[8..], (ushort)queue);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[10..], command);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[12..], status);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[14..], ushort.MaxValue);
            }
        }
    }
}

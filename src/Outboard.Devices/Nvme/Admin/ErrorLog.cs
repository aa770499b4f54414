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

    /// <summary>Longest <see cref="Save"/>.</summary>
    internal const int MaxSavedBytes = sizeof(ulong) + (Entries * SavedEntryBytes);

    private const int SavedEntryBytes = 6;

    private readonly Lock _lock = new();
    private readonly (ushort Queue, ushort Command, ushort Status)[] _entries =
        new (ushort, ushort, ushort)[Entries];

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
                ((ushort)queue, command, (ushort)(NvmeStatusRules.Field(status) << 1));
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
                (ushort queue, ushort command, ushort status) = Newest(i);
                Span<byte> entry = page.Slice(i * EntryBytes, EntryBytes);
                BinaryPrimitives.WriteUInt64LittleEndian(entry, _count - (ulong)i);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[8..], queue);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[10..], command);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[12..], status);
                BinaryPrimitives.WriteUInt16LittleEndian(entry[14..], ushort.MaxValue);
            }
        }
    }

    /// <summary>For another process: count u64; then, the newest first, queue, command and status, u16 each.</summary>
    internal byte[] Save()
    {
        lock (_lock)
        {
            byte[] saved = new byte[SizeFor(_count)];
            BinaryPrimitives.WriteUInt64LittleEndian(saved, _count);
            Span<byte> rest = saved.AsSpan(sizeof(ulong));
            for (int i = 0; !rest.IsEmpty; i++, rest = rest[SavedEntryBytes..])
            {
                (ushort queue, ushort command, ushort status) = Newest(i);
                BinaryPrimitives.WriteUInt16LittleEndian(rest, queue);
                BinaryPrimitives.WriteUInt16LittleEndian(rest[2..], command);
                BinaryPrimitives.WriteUInt16LittleEndian(rest[4..], status);
            }

            return saved;
        }
    }

    /// <summary>Whether <see cref="Load"/> can take this.</summary>
    internal static bool IsValid(ReadOnlySpan<byte> saved) => saved.Length >= sizeof(ulong)
        && saved.Length == SizeFor(BinaryPrimitives.ReadUInt64LittleEndian(saved));

    /// <summary>Takes over what another process had.</summary>
    internal void Load(ReadOnlySpan<byte> saved)
    {
        lock (_lock)
        {
            _count = BinaryPrimitives.ReadUInt64LittleEndian(saved);
            ReadOnlySpan<byte> rest = saved[sizeof(ulong)..];
            for (int i = 0; !rest.IsEmpty; i++, rest = rest[SavedEntryBytes..])
            {
                Newest(i) = (
                    BinaryPrimitives.ReadUInt16LittleEndian(rest), BinaryPrimitives.ReadUInt16LittleEndian(rest[2..]),
                    BinaryPrimitives.ReadUInt16LittleEndian(rest[4..]));
            }
        }
    }

    private static int SizeFor(ulong count) =>
        sizeof(ulong) + ((int)Math.Min(count, Entries) * SavedEntryBytes);

    /// <summary>The entry before so many newer ones, of those that are there.</summary>
    private ref (ushort Queue, ushort Command, ushort Status) Newest(int age) =>
        ref _entries[(int)((_count - 1 - (ulong)age) % Entries)];
}

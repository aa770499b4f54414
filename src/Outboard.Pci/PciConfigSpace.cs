// A configuration space as data: the bytes, which bits a guest may write, and which it clears by writing ones. A guest
// never sees an error: whatever it writes wherever, bits that are not writable keep their value.
using System.Buffers.Binary;
using Outboard.Pci.Spec;

namespace Outboard.Pci;

/// <summary>A configuration space, little-endian. All members may be called from any thread.</summary>
public sealed class PciConfigSpace
{
    private readonly Lock _lock = new();
    private readonly byte[] _values;
    private readonly byte[] _writable;
    private readonly byte[] _clearable;
    private byte[]? _initial;

    /// <summary>Creates a space of zero bytes that nobody may write.</summary>
    /// <param name="sizeBytes">256 for a conventional function, 4096 for a PCI Express one.</param>
    public PciConfigSpace(int sizeBytes)
    {
        if (sizeBytes is not (PciRegister.FirstExtended or PciRegister.ExpressBytes))
        {
            throw new ArgumentOutOfRangeException(nameof(sizeBytes), sizeBytes, "256 or 4096");
        }

        _values = new byte[sizeBytes];
        _writable = new byte[sizeBytes];
        _clearable = new byte[sizeBytes];
    }

    /// <summary>Bytes: 256 or 4096.</summary>
    public int SizeBytes => _values.Length;

    /// <summary>Reads as a guest does, any width at any offset; bytes beyond the end are zero.</summary>
    public void Read(uint offset, Span<byte> destination)
    {
        destination.Clear();
        if (offset < (uint)_values.Length)
        {
            int count = Math.Min(destination.Length, _values.Length - (int)offset);
            lock (_lock)
            {
                _values.AsSpan((int)offset, count).CopyTo(destination);
            }
        }
    }

    /// <summary>Writes as a guest does, any width at any offset; what may not be written stays.</summary>
    public void Write(uint offset, ReadOnlySpan<byte> source)
    {
        lock (_lock)
        {
            for (int i = 0; i < source.Length && offset + (ulong)i < (ulong)_values.Length; i++)
            {
                int at = (int)offset + i;
                int kept = _values[at] & ~_writable[at] & ~(source[i] & _clearable[at]);
                _values[at] = (byte)(kept | (source[i] & _writable[at]));
            }
        }
    }

    /// <summary>Reads 32 bits.</summary>
    public uint Get32(int offset)
    {
        lock (_lock)
        {
            return BinaryPrimitives.ReadUInt32LittleEndian(_values.AsSpan(offset));
        }
    }

    /// <summary>Reads 16 bits.</summary>
    public ushort Get16(int offset)
    {
        lock (_lock)
        {
            return BinaryPrimitives.ReadUInt16LittleEndian(_values.AsSpan(offset));
        }
    }

    /// <summary>Reads a byte.</summary>
    public byte Get8(int offset)
    {
        lock (_lock)
        {
            return _values[offset];
        }
    }

    /// <summary>Sets up to 8 bytes, as the device.</summary>
    public void Set(int offset, ulong value, int sizeBytes)
    {
        lock (_lock)
        {
            Put(_values, offset, value, sizeBytes);
        }
    }

    /// <summary>Sets and clears bits of 16, as the device.</summary>
    public void Change16(int offset, ushort set, ushort clear)
    {
        lock (_lock)
        {
            Span<byte> bytes = _values.AsSpan(offset, sizeof(ushort));
            int value = (BinaryPrimitives.ReadUInt16LittleEndian(bytes) & ~clear) | set;
            BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)value);
        }
    }

    /// <summary>Says which bits of up to 8 bytes a guest may write.</summary>
    public void AllowWrites(int offset, ulong mask, int sizeBytes)
    {
        lock (_lock)
        {
            Put(_writable, offset, mask, sizeBytes);
        }
    }

    /// <summary>Says which bits of up to 8 bytes a guest clears by writing ones.</summary>
    public void AllowClears(int offset, ulong mask, int sizeBytes)
    {
        lock (_lock)
        {
            Put(_clearable, offset, mask, sizeBytes);
        }
    }

    /// <summary>Places a structure: its bytes, and masks of the same length.</summary>
    public void Place(int offset, ReadOnlySpan<byte> values, ReadOnlySpan<byte> writable, ReadOnlySpan<byte> clearable)
    {
        lock (_lock)
        {
            values.CopyTo(_values.AsSpan(offset));
            writable.CopyTo(_writable.AsSpan(offset));
            clearable.CopyTo(_clearable.AsSpan(offset));
        }
    }

    /// <summary>Remembers the present bytes as those that <see cref="Restore"/> brings back.</summary>
    public void Remember()
    {
        lock (_lock)
        {
            _initial ??= [.. _values];
        }
    }

    /// <summary>Brings back the bytes of <see cref="Remember"/>: what a reset does.</summary>
    public void Restore()
    {
        lock (_lock)
        {
            _initial?.CopyTo(_values, 0);
        }
    }

    /// <summary>A copy of all bytes, for migration.</summary>
    public byte[] Save()
    {
        lock (_lock)
        {
            return [.. _values];
        }
    }

    private static void Put(byte[] target, int offset, ulong value, int sizeBytes)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..sizeBytes].CopyTo(target.AsSpan(offset));
    }
}

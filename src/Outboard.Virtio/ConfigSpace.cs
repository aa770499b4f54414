// A device's configuration space as data: bytes, and which of them a driver may write. One object serves every
// transport: GET_CONFIG and SET_CONFIG of vhost-user, the device configuration of virtio-pci.
using System.Buffers.Binary;

namespace Outboard.Virtio;

/// <summary>A field of a device's configuration space.</summary>
/// <param name="Offset">Offset in bytes.</param>
/// <param name="SizeBytes">1, 2, 4 or 8 for numbers; any size for bytes.</param>
/// <param name="IsWritable">Whether a driver may write it.</param>
public readonly record struct ConfigField(int Offset, int SizeBytes, bool IsWritable = false);

/// <summary>A configuration space, little-endian. All members may be called from any thread.</summary>
public sealed class ConfigSpace
{
    private readonly Lock _lock = new();
    private readonly byte[] _bytes;
    private readonly bool[] _writable;

    /// <summary>Creates a space of zero bytes with these fields.</summary>
    public ConfigSpace(int sizeBytes, params ReadOnlySpan<ConfigField> writableFields)
    {
        _bytes = new byte[sizeBytes];
        _writable = new bool[sizeBytes];
        foreach (ConfigField field in writableFields)
        {
            _writable.AsSpan(field.Offset, field.SizeBytes).Fill(field.IsWritable);
        }
    }

    /// <summary>Bytes.</summary>
    public int SizeBytes => _bytes.Length;

    /// <summary>Counts changes made by the device: virtio-v1.3 "2.5 Device Configuration Space".</summary>
    public uint Generation { get; private set; }

    /// <summary>Sets a field, as the device.</summary>
    /// <returns>Whether the value is another than before.</returns>
    public bool Set(ConfigField field, ulong value)
    {
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        lock (_lock)
        {
            Span<byte> target = _bytes.AsSpan(field.Offset, field.SizeBytes);
            if (target.SequenceEqual(bytes[..field.SizeBytes]))
            {
                return false;
            }

            bytes[..field.SizeBytes].CopyTo(target);
            Generation++;
            return true;
        }
    }

    /// <summary>Sets a field of bytes, as the device; what is missing becomes zero.</summary>
    public void SetBytes(ConfigField field, ReadOnlySpan<byte> value)
    {
        lock (_lock)
        {
            Span<byte> target = _bytes.AsSpan(field.Offset, field.SizeBytes);
            target.Clear();
            value[..Math.Min(value.Length, field.SizeBytes)].CopyTo(target);
            Generation++;
        }
    }

    /// <summary>Reads a field of up to 8 bytes as a number.</summary>
    public ulong Get(ConfigField field)
    {
        Span<byte> bytes = stackalloc byte[8];
        bytes.Clear();
        lock (_lock)
        {
            _bytes.AsSpan(field.Offset, field.SizeBytes).CopyTo(bytes);
        }

        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    /// <summary>Reads for a driver; bytes beyond the end are zero.</summary>
    public void Read(uint offset, Span<byte> destination) => ReadWithGeneration(offset, destination);

    /// <summary>As <see cref="Read"/>.</summary>
    /// <returns>The generation that the bytes are of.</returns>
    public uint ReadWithGeneration(uint offset, Span<byte> destination)
    {
        destination.Clear();
        int count = offset < (uint)_bytes.Length ? Math.Min(destination.Length, _bytes.Length - (int)offset) : 0;
        lock (_lock)
        {
            _bytes.AsSpan((int)Math.Min(offset, (uint)_bytes.Length), count).CopyTo(destination);
            return Generation;
        }
    }

    /// <summary>Writes for a driver: only writable bytes change.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="source">The bytes.</param>
    /// <param name="isMigration">Write every byte: a front-end restores the space at a migration's destination.</param>
    /// <returns>False when the write leaves the space, or touches no writable byte.</returns>
    public bool Write(uint offset, ReadOnlySpan<byte> source, bool isMigration = false)
    {
        if (offset > (uint)_bytes.Length || source.Length > _bytes.Length - (int)offset)
        {
            return false;
        }

        bool touched = false;
        lock (_lock)
        {
            for (int i = 0; i < source.Length; i++)
            {
                if (isMigration || _writable[(int)offset + i])
                {
                    _bytes[(int)offset + i] = source[i];
                    touched = true;
                }
            }
        }

        return touched;
    }
}

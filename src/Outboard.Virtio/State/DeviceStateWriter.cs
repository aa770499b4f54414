// Writes a device's state, see DeviceStateFormat.
using System.Buffers;
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.State;

/// <summary>Collects the records of a device's state.</summary>
public sealed class DeviceStateWriter
{
    private readonly ArrayBufferWriter<byte> _bytes = new();

    /// <summary>Begins the state of a device.</summary>
    /// <param name="id">Its type; PCI devices that are no virtio devices have numbers of their own.</param>
    public DeviceStateWriter(VirtioDeviceId id)
    {
        Span<byte> header = stackalloc byte[DeviceStateFormat.HeaderBytes];
        DeviceStateFormat.Magic.CopyTo(header);
        BinaryPrimitives.WriteUInt16LittleEndian(header[8..], DeviceStateFormat.Version);
        BinaryPrimitives.WriteUInt16LittleEndian(header[10..], (ushort)id);
        header[12..].Clear();
        _bytes.Write(header);
    }

    /// <summary>Adds a record of bytes.</summary>
    /// <param name="name">Four ASCII characters, unique in this device's state.</param>
    /// <param name="bytes">Its content.</param>
    /// <param name="isIgnorable">Whether a reader that does not know it may go on without it.</param>
    public void Write(string name, ReadOnlySpan<byte> bytes, bool isIgnorable = false)
    {
        Span<byte> header = stackalloc byte[DeviceStateFormat.RecordHeaderBytes];
        header.Clear();
        if (name.Length != 4 || Encoding.ASCII.GetBytes(name, header) != 4)
        {
            throw new ArgumentException($"'{name}' is not four ASCII characters", nameof(name));
        }

        BinaryPrimitives.WriteUInt16LittleEndian(header[4..], isIgnorable ? DeviceStateFormat.Ignorable : (ushort)0);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], (uint)bytes.Length);
        _bytes.Write(header);
        _bytes.Write(bytes);
    }

    /// <summary>Adds a record of one number.</summary>
    public void Write(string name, ulong value, bool isIgnorable = false)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        Write(name, bytes, isIgnorable);
    }

    /// <summary>The whole stream.</summary>
    /// <exception cref="DeviceStateException">It is too long.</exception>
    public byte[] Finish()
    {
        int length = _bytes.WrittenCount;
        byte[] all = new byte[length + DeviceStateFormat.ChecksumBytes];
        if (all.Length > DeviceStateFormat.MaxBytes)
        {
            throw new DeviceStateException($"a state of {all.Length} bytes is too long");
        }

        _bytes.WrittenSpan.CopyTo(all);
        BinaryPrimitives.WriteUInt32LittleEndian(all.AsSpan(12), (uint)all.Length);
        SHA256.HashData(all.AsSpan(0, length), all.AsSpan(length));
        return all;
    }
}

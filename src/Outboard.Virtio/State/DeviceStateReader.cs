// Reads a device's state, see DeviceStateFormat. All of it is checked before a device sees any.
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.State;

/// <summary>The records of a device's state.</summary>
public sealed class DeviceStateReader
{
    private readonly Dictionary<string, Record> _records = new(StringComparer.Ordinal);
    private readonly HashSet<string> _read = new(StringComparer.Ordinal);

    /// <summary>Checks a stream.</summary>
    /// <param name="id">The type of the device that it has to be of.</param>
    /// <param name="stream">The bytes.</param>
    /// <exception cref="DeviceStateException">It is not the whole, unaltered state of such a device.</exception>
    public DeviceStateReader(VirtioDeviceId id, ReadOnlySpan<byte> stream)
    {
        ReadOnlySpan<byte> rest = CheckFrame(id, stream);
        while (!rest.IsEmpty)
        {
            if (rest.Length < DeviceStateFormat.RecordHeaderBytes)
            {
                throw new DeviceStateException($"{rest.Length} bytes where a record begins");
            }

            string name = Encoding.ASCII.GetString(rest[..4]);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(rest[8..]);
            bool isIgnorable =
                (BinaryPrimitives.ReadUInt16LittleEndian(rest[4..]) & DeviceStateFormat.Ignorable) != 0;
            rest = rest[DeviceStateFormat.RecordHeaderBytes..];
            if (length > (uint)rest.Length)
            {
                throw new DeviceStateException($"record '{name}' of {length} bytes leaves the stream");
            }

            if (!_records.TryAdd(name, new Record(rest[..(int)length].ToArray(), isIgnorable)))
            {
                throw new DeviceStateException($"record '{name}' comes twice");
            }

            rest = rest[(int)length..];
        }
    }

    /// <summary>Whether there is a record.</summary>
    public bool Has(string name) => _records.ContainsKey(name);

    /// <summary>A record's bytes.</summary>
    /// <returns>False when there is no such record.</returns>
    /// <exception cref="DeviceStateException">It has another length.</exception>
    public bool TryRead(string name, int length, out ReadOnlyMemory<byte> bytes)
    {
        bytes = default;
        if (!_records.TryGetValue(name, out Record? record))
        {
            return false;
        }

        if (record.Bytes.Length != length)
        {
            throw new DeviceStateException($"record '{name}' has {record.Bytes.Length} bytes, not {length}");
        }

        _read.Add(name);
        bytes = record.Bytes;
        return true;
    }

    /// <summary>A record of bytes that must be there.</summary>
    /// <exception cref="DeviceStateException">It is not, or has more than <paramref name="most"/> bytes.</exception>
    public ReadOnlyMemory<byte> ReadBytes(string name, int most)
    {
        if (!_records.TryGetValue(name, out Record? record))
        {
            throw new DeviceStateException($"record '{name}' is missing");
        }

        _read.Add(name);
        return record.Bytes.Length <= most
            ? record.Bytes
            : throw new DeviceStateException($"record '{name}' has {record.Bytes.Length} bytes, at most {most}");
    }

    /// <summary>A record of one number.</summary>
    public bool TryReadNumber(string name, out ulong value)
    {
        bool found = TryRead(name, sizeof(ulong), out ReadOnlyMemory<byte> bytes);
        value = found ? BinaryPrimitives.ReadUInt64LittleEndian(bytes.Span) : 0;
        return found;
    }

    /// <summary>A record of one number that must be there.</summary>
    /// <exception cref="DeviceStateException">It is not, or is larger than <paramref name="largest"/>.</exception>
    public ulong ReadNumber(string name, ulong largest = ulong.MaxValue) => !TryReadNumber(name, out ulong value)
        ? throw new DeviceStateException($"record '{name}' is missing")
        : value <= largest ? value : throw new DeviceStateException($"record '{name}': {value} is beyond {largest}");

    /// <summary>All records were read that may not be ignored.</summary>
    /// <exception cref="DeviceStateException">One was not.</exception>
    public void RequireAllRead()
    {
        foreach ((string name, Record record) in _records)
        {
            if (!record.IsIgnorable && !_read.Contains(name))
            {
                throw new DeviceStateException($"record '{name}' means nothing to this device");
            }
        }
    }

    private static ReadOnlySpan<byte> CheckFrame(VirtioDeviceId id, ReadOnlySpan<byte> stream)
    {
        const int least = DeviceStateFormat.HeaderBytes + DeviceStateFormat.ChecksumBytes;
        if (stream.Length < least || !stream.StartsWith(DeviceStateFormat.Magic))
        {
            throw new DeviceStateException($"{stream.Length} bytes that are no device's state");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(stream[8..]);
        if (version != DeviceStateFormat.Version)
        {
            throw new DeviceStateException($"version {version}, this program reads {DeviceStateFormat.Version}");
        }

        uint length = BinaryPrimitives.ReadUInt32LittleEndian(stream[12..]);
        if (length != (uint)stream.Length)
        {
            throw new DeviceStateException($"{stream.Length} bytes came of {length}");
        }

        ReadOnlySpan<byte> content = stream[..^DeviceStateFormat.ChecksumBytes];
        Span<byte> checksum = stackalloc byte[DeviceStateFormat.ChecksumBytes];
        SHA256.HashData(content, checksum);
        if (!checksum.SequenceEqual(stream[content.Length..]))
        {
            throw new DeviceStateException("the checksum is wrong");
        }

        ushort device = BinaryPrimitives.ReadUInt16LittleEndian(stream[10..]);
        return device == (ushort)id
            ? content[DeviceStateFormat.HeaderBytes..]
            : throw new DeviceStateException($"the state of a device of type {device}, this is a {id} ({(ushort)id})");
    }

    private sealed record Record(byte[] Bytes, bool IsIgnorable);
}

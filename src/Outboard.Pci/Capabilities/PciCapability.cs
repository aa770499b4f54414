// A capability as data: its bytes and which of them a guest may write. The list links them: conventional ones from
// 0x40 on, extended ones from 0x100 on.
using System.Buffers.Binary;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>A capability, conventional or extended.</summary>
public abstract class PciCapability
{
    private readonly byte[] _values;
    private readonly byte[] _writable;
    private readonly byte[] _clearable;

    /// <summary>Describes a capability of zero bytes.</summary>
    /// <param name="id">Its id.</param>
    /// <param name="sizeBytes">Bytes, header included.</param>
    /// <param name="isExtended">Whether it belongs to the extended list.</param>
    protected PciCapability(ushort id, int sizeBytes, bool isExtended = false)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(sizeBytes, isExtended ? 4 : 2);
        Id = id;
        IsExtended = isExtended;
        _values = new byte[sizeBytes];
        _writable = new byte[sizeBytes];
        _clearable = new byte[sizeBytes];
    }

    /// <summary>The id.</summary>
    public ushort Id { get; }

    /// <summary>Whether it belongs to the extended list.</summary>
    public bool IsExtended { get; }

    /// <summary>Bytes, header included.</summary>
    public int SizeBytes => _values.Length;

    /// <summary>Where it was placed; 0 before that.</summary>
    public int Offset { get; private set; }

    /// <summary>Sets a field: value, writable bits, bits cleared by ones.</summary>
    protected void Field(int offset, int sizeBytes, ulong value, ulong writable = 0, ulong clearable = 0)
    {
        Put(_values, offset, sizeBytes, value);
        Put(_writable, offset, sizeBytes, writable);
        Put(_clearable, offset, sizeBytes, clearable);
    }

    /// <summary>Sets bytes, all writable or none.</summary>
    protected void Bytes(int offset, ReadOnlySpan<byte> values, bool isWritable)
    {
        values.CopyTo(_values.AsSpan(offset));
        _writable.AsSpan(offset, values.Length).Fill(isWritable ? (byte)0xff : (byte)0);
    }

    internal void PlaceAt(PciConfigSpace config, int offset)
    {
        Offset = offset;
        if (IsExtended)
        {
            Field(0, sizeof(uint), Id | (1u << 16));
        }
        else
        {
            Field(0, sizeof(ushort), Id);
        }

        config.Place(offset, _values, _writable, _clearable);
    }

    private static void Put(byte[] target, int offset, int sizeBytes, ulong value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..sizeBytes].CopyTo(target.AsSpan(offset));
    }
}

/// <summary>Links capabilities in the order in which they are added.</summary>
internal sealed class CapabilityList(PciConfigSpace config)
{
    private int _lastConventional;
    private int _nextConventional = PciRegister.FirstCapability;
    private int _lastExtended;
    private int _nextExtended = PciRegister.FirstExtended;

    /// <param name="capability">The capability.</param>
    /// <param name="offset">Where to place it; 0 for the next free place.</param>
    internal void Add(PciCapability capability, int offset)
    {
        int next = capability.IsExtended ? _nextExtended : _nextConventional;
        int end = capability.IsExtended ? config.SizeBytes : PciRegister.FirstExtended;
        offset = offset == 0 ? next : offset;
        if (offset < next || offset % 4 != 0 || offset + capability.SizeBytes > end
            || (capability.IsExtended && _lastExtended == 0 && offset != PciRegister.FirstExtended))
        {
            throw new ArgumentOutOfRangeException(
                nameof(offset), offset, $"capability 0x{capability.Id:x}: a multiple of 4 from {next} on, below {end}");
        }

        capability.PlaceAt(config, offset);
        int free = (offset + capability.SizeBytes + 3) & ~3;
        if (capability.IsExtended)
        {
            LinkExtended(offset);
            _nextExtended = free;
        }
        else
        {
            LinkConventional(offset);
            _nextConventional = free;
        }
    }

    private void LinkConventional(int offset)
    {
        int pointer = _lastConventional == 0 ? PciRegister.CapabilityPointer : _lastConventional + 1;
        config.Set(pointer, (ulong)offset, 1);
        config.Change16(PciRegister.Status, (ushort)PciStatus.Capabilities, 0);
        _lastConventional = offset;
    }

    private void LinkExtended(int offset)
    {
        if (_lastExtended != 0)
        {
            config.Set(_lastExtended + 2, 1u | ((ulong)offset << 4), sizeof(ushort));
        }

        _lastExtended = offset;
    }
}

// Accesses to regions, and the reset.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

internal sealed partial class ServerSession
{
    private ValueTask RegionRead(VfioUserMessage message)
    {
        RegionAccessPayload access = message.Read<RegionAccessPayload>();
        RequireInside("REGION_READ", access, RegionFlags.Read);
        _reply.Write(access);
        Span<byte> data = _reply.Append((int)access.Count);
        switch (access.Region)
        {
            case ConfigRegion:
                _function.ReadConfig((uint)access.Offset, data);
                break;
            case RomRegion:
                _function.Rom!.Read(access.Offset, data);
                break;
            default:
                _function.ReadBarAt(_function.Bars[(int)access.Region]!, access.Offset, data);
                break;
        }

        return default;
    }

    private ValueTask RegionWriteAsync(VfioUserMessage message)
    {
        RegionAccessPayload access = message.Read<RegionAccessPayload>();
        RequireInside("REGION_WRITE", access, RegionFlags.Write);
        ReadOnlyMemory<byte> data = message.Payload[RegionAccessPayload.Bytes..];
        if (data.Length != access.Count)
        {
            throw new ProtocolException("REGION_WRITE", "count", $"{access.Count}, and {data.Length} bytes came");
        }

        _reply.Write(access);
        return WriteAsync(access, data);
    }

    /// <summary>Carries entries out in their order, and tells how many; the first bad one ends it.</summary>
    private async ValueTask RegionWriteMultiAsync(VfioUserMessage message)
    {
        const string name = "REGION_WRITE_MULTI";
        ulong count = message.Read<WriteMultiPayload>().Count;
        ReadOnlyMemory<byte> entries = message.Payload[WriteMultiPayload.Bytes..];
        if (count > WriteMultiPayload.MaxWrites || entries.Length != (int)count * WriteMultiEntry.Bytes)
        {
            throw new ProtocolException(name, "count", $"{count} writes in {entries.Length} bytes");
        }

        for (int i = 0; i < (int)count; i++)
        {
            ReadOnlyMemory<byte> entry = entries.Slice(i * WriteMultiEntry.Bytes, WriteMultiEntry.Bytes);
            RegionAccessPayload access = MemoryMarshal.Read<RegionAccessPayload>(entry.Span);
            if (access.Count > WriteMultiEntry.MaxDataBytes)
            {
                throw new ProtocolException(name, "count", $"write {i} has {access.Count} bytes, at most 8 fit");
            }

            RequireInside(name, access, RegionFlags.Write);
            ReadOnlyMemory<byte> data = entry.Slice(WriteMultiEntry.DataOffset, (int)access.Count);
            await WriteAsync(access, data).ConfigureAwait(false);
        }

        _reply.Write(new WriteMultiPayload(count));
    }

    private async ValueTask DeviceResetAsync()
    {
        try
        {
            await _function.ResetAsync(PciResetKind.Device).ConfigureAwait(false);
        }
        catch (PciAccessException error)
        {
            throw new ProtocolException("DEVICE_RESET", "device", error.Message, error.Errno);
        }

        _migration = MigrationState.Running;
    }

    private ValueTask WriteAsync(RegionAccessPayload access, ReadOnlyMemory<byte> data)
    {
        if (access.Region == ConfigRegion)
        {
            return _function.WriteConfigAsync((uint)access.Offset, data);
        }

        PciBar bar = _function.Bars[(int)access.Region]!;
        ValueTask writing = _function.WriteBarAtAsync(bar, access.Offset, data);
        return writing.IsCompletedSuccessfully ? default : FinishAsync(writing);
    }

    private static async ValueTask FinishAsync(ValueTask writing)
    {
        try
        {
            await writing.ConfigureAwait(false);
        }
        catch (PciAccessException error)
        {
            throw new ProtocolException("REGION_WRITE", "device", error.Message, error.Errno);
        }
    }

    private void RequireInside(string name, RegionAccessPayload access, RegionFlags needed)
    {
        RegionFlags flags = access.Region < RegionCount ? FlagsOf(access.Region) : RegionFlags.None;
        if ((flags & needed) == 0)
        {
            throw new ProtocolException(
                name, "region", $"{access.Region} is not there, or is not for this",
                flags == RegionFlags.None ? Errno.InvalidArgument : Errno.NotPermitted);
        }

        if (access.Count > VersionCapabilities.MaxTransferBytes)
        {
            throw new ProtocolException(
                name, "count", $"{access.Count}, at most {VersionCapabilities.MaxTransferBytes} were agreed upon");
        }

        ulong size = SizeOf(access.Region);
        if (access.Offset > size || access.Count > size - access.Offset)
        {
            throw new ProtocolException(
                name, "offset", $"{access.Count} bytes at 0x{access.Offset:x} leave region {access.Region}");
        }
    }
}

// What the device is: version, device, regions, interrupts.
using Microsoft.Extensions.Logging;
using Outboard.Linux;
using Outboard.Pci.Bars;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

internal sealed partial class ServerSession
{
    private const int RomRegion = 6;
    private const int ConfigRegion = 7;
    private const int RegionCount = 9;
    private const int IrqKinds = 5;

    private ValueTask Version(VfioUserMessage message)
    {
        VersionPayload proposed = message.Read<VersionPayload>();
        if (proposed.Major != VersionCapabilities.Major)
        {
            throw new ProtocolException("VERSION", "major", $"{proposed.Major}: only 0 is spoken") { IsFatal = true };
        }

        VersionCapabilities client = VersionCapabilities.Parse(message.Payload.Span[VersionPayload.Bytes..]);
        VersionCapabilities own = Answer(client);
        if (client is { TwinSocket: true, MaxMessageFds: > 0 })
        {
            (_twin, Attachment other) = SocketChannel.CreatePair();
            _reply.Attach(other);
            own = own with { TwinSocket = true, TwinSocketIndex = 0 };
            _requests.Channel = _twin;
            _twinReceiving = ReceiveRepliesAsync(_twin);
        }

        ushort minor = Math.Min(proposed.Minor, VersionCapabilities.Minor);
        _reply.Write(new VersionPayload(VersionCapabilities.Major, minor));
        _reply.Write(own.ToJson());
        _requests.MaxTransferBytes =
            (int)Math.Min(client.MaxDataTransferBytes, VersionCapabilities.MaxTransferBytes);
        _client = client;
        _function.Attach(_dma);
        _log.LogInformation(
            "a client speaks version 0.{Minor}: {Fds} descriptors, {Bytes} bytes in a message",
            proposed.Minor, client.MaxMessageFds, client.MaxDataTransferBytes);
        return default;
    }

    private VersionCapabilities Answer(VersionCapabilities client) => new()
    {
        MaxMessageFds = VersionCapabilities.MaxMessageDescriptors,
        MaxDataTransferBytes = VersionCapabilities.MaxTransferBytes,
        MaxDmaMaps = client.MaxDmaMaps is { } maps ? Math.Min(maps, (ulong)_options.MaxDmaMaps) : null,
        PageSizes = client.PageSizes is null ? null : VersionCapabilities.PageBytes,
        WriteMultiple = client.WriteMultiple,
        MigrationPageBytes = client.MigrationPageBytes,
    };

    private ValueTask DeviceGetInfo(VfioUserMessage message)
    {
        DeviceInfoPayload asked = message.Read<DeviceInfoPayload>();
        RequireArgsz("DEVICE_GET_INFO", asked.Argsz, DeviceInfoPayload.Bytes);
        const uint flags = DeviceInfoPayload.CanReset | DeviceInfoPayload.IsPci;
        _reply.Write(new DeviceInfoPayload(DeviceInfoPayload.Bytes, flags, RegionCount, IrqKinds));
        return default;
    }

    /// <summary>The descriptor goes along exactly when the reply is complete.</summary>
    private ValueTask DeviceGetRegionInfo(VfioUserMessage message)
    {
        const string name = "DEVICE_GET_REGION_INFO";
        RegionInfoPayload asked = message.Read<RegionInfoPayload>();
        RequireArgsz(name, asked.Argsz, RegionInfoPayload.Bytes);
        if (asked.Index >= RegionCount)
        {
            throw new ProtocolException(name, "index", $"{asked.Index} of {RegionCount} regions");
        }

        RegionFlags flags = FlagsOf(asked.Index);
        PciBar? bar = (flags & RegionFlags.Mmap) != 0 ? _function.Bars[(int)asked.Index] : null;
        IReadOnlyList<BarArea> areas = bar?.MappableAreas ?? [];
        uint needed = RegionInfoPayload.Bytes;
        if (bar is not null)
        {
            needed += SparseMmapPayload.Bytes + (uint)(areas.Count * SparseMmapPayload.AreaBytes);
        }

        bool isComplete = asked.Argsz >= needed;
        bool hasCapabilities = bar is not null && isComplete;
        _reply.Write(new RegionInfoPayload(
            needed, hasCapabilities ? flags | RegionFlags.Capabilities : flags, asked.Index,
            hasCapabilities ? RegionInfoPayload.Bytes : 0u, SizeOf(asked.Index), bar?.Mappable?.Offset ?? 0));
        if (!hasCapabilities)
        {
            return default;
        }

        _reply.Write(new SparseMmapPayload(SparseMmapPayload.SparseMmapId, 1, 0, (uint)areas.Count, 0));
        foreach (BarArea area in areas)
        {
            _reply.Write(area);
        }

        _reply.Attach(new Attachment(bar!.Mappable!.Object.Descriptor.Duplicate()));
        return default;
    }

    private ValueTask DeviceGetRegionIoFds(VfioUserMessage message)
    {
        const string name = "DEVICE_GET_REGION_IO_FDS";
        RegionIoFdsPayload asked = message.Read<RegionIoFdsPayload>();
        RequireArgsz(name, asked.Argsz, RegionIoFdsPayload.Bytes);
        if (asked.Flags != 0 || asked.Count != 0)
        {
            throw new ProtocolException(name, "flags", $"0x{asked.Flags:x}, count {asked.Count}: both have to be 0");
        }

        if (asked.Argsz > VersionCapabilities.MaxTransferBytes)
        {
            throw new ProtocolException(name, "argsz", $"{asked.Argsz} is beyond any reply");
        }

        if (asked.Index >= RegionCount || FlagsOf(asked.Index) == RegionFlags.None)
        {
            throw new ProtocolException(name, "index", $"{asked.Index}: there is no such region");
        }

        IReadOnlyList<PciDoorbell> all =
            asked.Index < PciBar.Count ? _function.Bars[(int)asked.Index]!.Doorbells : [];

        DoorbellList doorbells = new(all, _client!.MaxMessageFds, _options.OffersShadowDoorbells);
        int entryBytes = _options.OffersShadowDoorbells ? IoEventFdEntry.WideBytes : _options.IoFdEntryBytes;
        uint needed = RegionIoFdsPayload.Bytes + (uint)(doorbells.Count * entryBytes);
        _reply.Write(new RegionIoFdsPayload(needed, 0, asked.Index, (uint)doorbells.Count));
        if (asked.Argsz < needed)
        {
            return default;
        }

        for (int i = 0; i < doorbells.Count; i++)
        {
            doorbells.Write(i, _reply.Append(entryBytes));
        }

        foreach (FileDescriptor descriptor in doorbells.Descriptors)
        {
            _reply.Attach(new Attachment(descriptor.Duplicate()));
        }

        return default;
    }

    private ValueTask DeviceGetIrqInfo(VfioUserMessage message)
    {
        const string name = "DEVICE_GET_IRQ_INFO";
        IrqInfoPayload asked = message.Read<IrqInfoPayload>();
        RequireArgsz(name, asked.Argsz, IrqInfoPayload.Bytes);
        if (asked.Index >= IrqKinds)
        {
            throw new ProtocolException(name, "index", $"{asked.Index} of {IrqKinds} kinds");
        }

        InterruptVectors vectors = _function.Interrupts[(InterruptKind)asked.Index];
        IrqFlags flags = vectors.IsAutoMasked
            ? IrqFlags.EventFd | IrqFlags.Maskable | IrqFlags.AutoMasked
            : IrqFlags.EventFd;
        _reply.Write(new IrqInfoPayload(IrqInfoPayload.Bytes, flags, asked.Index, (uint)vectors.Count));
        return default;
    }

    private RegionFlags FlagsOf(uint region)
    {
        const RegionFlags both = RegionFlags.Read | RegionFlags.Write;
        return region switch
        {
            < PciBar.Count when _function.Bars[(int)region] is { } bar =>
                bar.Mappable is not null ? both | RegionFlags.Mmap : both,
            RomRegion when _function.Rom is not null => RegionFlags.Read,
            ConfigRegion => both,
            _ => RegionFlags.None,
        };
    }

    private ulong SizeOf(uint region) => region switch
    {
        < PciBar.Count => _function.Bars[(int)region]?.SizeBytes ?? 0,
        RomRegion => _function.Rom?.SizeBytes ?? 0,
        ConfigRegion => (ulong)_function.Config.SizeBytes,
        _ => 0,
    };

    private static void RequireArgsz(string name, uint argsz, int least)
    {
        if (argsz < least)
        {
            throw new ProtocolException(name, "argsz", $"{argsz}, and the reply has {least} bytes at least");
        }
    }
}

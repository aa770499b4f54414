// DEVICE_FEATURE: migration version 2 and dirty logging; and the stream of a migration.
using System.Numerics;
using System.Runtime.InteropServices;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

internal sealed partial class ServerSession
{
    private const string FeatureName = "DEVICE_FEATURE";

    /// <summary>Flags of the feature MIGRATION.</summary>
    private const ulong StopCopyFlag = 1;

    private const ulong PreCopyFlag = 4;

    /// <summary>Largest page of a report: a page that covers more says nothing.</summary>
    private const ulong MaxReportPageBytes = 1 << 23;

    /// <summary>Bytes of the largest bitmap, for 8 TiB of 4-KiB pages it would be 256 MiB; a reply has less.</summary>
    private const ulong MaxBitmapBytes = VersionCapabilities.MaxTransferBytes;

    /// <summary>
    /// Guest addresses that a function's own log covers at least, for memory that is added while it is on: 1 TiB, for
    /// which the bitmap has 32 MiB, of which only marked pages take memory.
    /// </summary>
    private const ulong LeastLoggedBytes = 1UL << 40;

    /// <summary>
    /// Guest addresses that a function's own log covers at most: what processors have of physical ones, and 8 GiB of
    /// (sparse) bitmap. What lies beyond counts as written.
    /// </summary>
    private const ulong MostLoggedBytes = 1UL << 48;

    /// <summary>Most ranges of a logging start; a client has fewer windows.</summary>
    private const uint MaxLoggingRanges = 65535;

    private MigrationState _migration = MigrationState.Running;

    private async ValueTask DeviceFeatureAsync(VfioUserMessage message)
    {
        FeaturePayload asked = message.Read<FeaturePayload>();
        ReadOnlyMemory<byte> data = message.Payload[FeaturePayload.Bytes..];
        Require(asked.Argsz >= FeaturePayload.Bytes, "argsz", asked.Argsz);
        uint operation = asked.Flags & (FeaturePayload.Get | FeaturePayload.Set | FeaturePayload.Probe);
        Require((asked.Flags & ~(operation | FeaturePayload.FeatureMask)) == 0 && operation != 0, "flags", asked.Flags);
        Require(_function.Migration is not null, "feature", asked.Flags);
        uint possible = asked.Feature switch
        {
            DeviceFeature.Migration or DeviceFeature.DmaLoggingReport => FeaturePayload.Get,
            DeviceFeature.MigrationDeviceState => FeaturePayload.Get | FeaturePayload.Set,
            DeviceFeature.DmaLoggingStart or DeviceFeature.DmaLoggingStop => FeaturePayload.Set,
            _ => 0,
        };
        uint wanted = operation & ~FeaturePayload.Probe;
        Require(possible != 0 && (wanted & ~possible) == 0, "flags", asked.Flags);
        if ((operation & FeaturePayload.Probe) != 0)
        {
            _reply.Write(message.Payload.Span);
            return;
        }

        Require(wanted is FeaturePayload.Get or FeaturePayload.Set, "flags", asked.Flags);
        if (wanted == FeaturePayload.Set)
        {
            await SetFeatureAsync(asked, data).ConfigureAwait(false);
            _reply.Write(message.Payload.Span);
        }
        else
        {
            GetFeature(asked, data.Span);
        }
    }

    private void GetFeature(FeaturePayload asked, ReadOnlySpan<byte> data)
    {
        switch (asked.Feature)
        {
            case DeviceFeature.Migration:
                BeginReply(asked, sizeof(ulong));
                _reply.Write(StopCopyFlag | (_function.Migration!.HasPreCopy ? PreCopyFlag : 0UL));
                break;
            case DeviceFeature.MigrationDeviceState:
                BeginReply(asked, DeviceStatePayload.Bytes);
                _reply.Write(new DeviceStatePayload((uint)_migration, 0));
                break;
            default:
                DmaLoggingReport(asked, data);
                break;
        }
    }

    private async ValueTask SetFeatureAsync(FeaturePayload asked, ReadOnlyMemory<byte> data)
    {
        switch (asked.Feature)
        {
            case DeviceFeature.MigrationDeviceState:
                Require(
                    data.Length >= DeviceStatePayload.Bytes
                    && asked.Argsz >= FeaturePayload.Bytes + DeviceStatePayload.Bytes, "argsz", asked.Argsz);
                uint state = MemoryMarshal.Read<DeviceStatePayload>(data.Span).State;
                await ChangeStateAsync((MigrationState)state).ConfigureAwait(false);
                break;
            case DeviceFeature.DmaLoggingStart:
                if (DmaLoggingStart(asked, data.Span) && _function.NeedsDirtyLog)
                {
                    DirtyLog log = DirtyLog.Create(Math.Clamp(_dma.End, LeastLoggedBytes, MostLoggedBytes));
                    _dma.Dirty.Add(log);
                    await _function.ChangeLogAsync(log).ConfigureAwait(false);
                }

                break;
            default:
                await EndLoggingAsync().ConfigureAwait(false);
                break;
        }
    }

    private async ValueTask EndLoggingAsync()
    {
        if (_dma.Dirty.IsOn)
        {
            await _function.ChangeLogAsync(null).ConfigureAwait(false);
            _dma.Dirty.Stop();
        }
    }

    private async ValueTask ChangeStateAsync(MigrationState wanted)
    {
        PciMigration migration = _function.Migration!;
        MigrationState[] path = MigrationPath.Find(_migration, wanted, migration.HasPreCopy)
            ?? throw new ProtocolException(FeatureName, "state", $"no way from {_migration} to {wanted}");
        foreach (MigrationState next in path)
        {
            try
            {
                await migration.EnterAsync(_migration, next).ConfigureAwait(false);
                _migration = next;
            }
            catch (MigrationException error)
            {
                // what a failed step leaves behind is not known
                _migration = MigrationState.Error;
                migration.OnFailed();
                throw new ProtocolException(FeatureName, "state", error.Message, error.Errno);
            }
        }
    }

    /// <returns>Whether it was not on before.</returns>
    private bool DmaLoggingStart(FeaturePayload asked, ReadOnlySpan<byte> data)
    {
        Require(
            data.Length >= LoggingStartPayload.Bytes
            && asked.Argsz >= FeaturePayload.Bytes + LoggingStartPayload.Bytes, "argsz", asked.Argsz);
        LoggingStartPayload start = MemoryMarshal.Read<LoggingStartPayload>(data);
        Require(BitOperations.IsPow2(start.PageBytes), "page size", start.PageBytes);
        Require(
            start.RangeCount <= MaxLoggingRanges
            && data.Length - LoggingStartPayload.Bytes >= (long)start.RangeCount * LoggingStartPayload.RangeBytes,
            "ranges", start.RangeCount);
        if (_dma.Dirty.IsOn)
        {
            Require(_dma.Dirty.PageBytes == start.PageBytes, "page size", start.PageBytes);
            return false;
        }

        (ulong First, ulong Last)[] ranges = new (ulong, ulong)[start.RangeCount];
        ReadOnlySpan<ulong> pairs =
            MemoryMarshal.Cast<byte, ulong>(data[LoggingStartPayload.Bytes..])[..(ranges.Length * 2)];
        for (int i = 0; i < ranges.Length; i++)
        {
            (ulong first, ulong length) = (pairs[2 * i], pairs[(2 * i) + 1]);
            Require(length > 0 && length - 1 <= ulong.MaxValue - first, "range", length);
            ranges[i] = (first, first + length - 1);
        }

        _dma.Dirty.Start(start.PageBytes, ranges);
        return true;
    }

    /// <summary>A range may be any: it need not be a window, and unknown memory is clean.</summary>
    private void DmaLoggingReport(FeaturePayload asked, ReadOnlySpan<byte> data)
    {
        Require(data.Length >= LoggingReportPayload.Bytes, "size", (ulong)data.Length);
        Require(asked.Argsz >= FeaturePayload.Bytes + LoggingReportPayload.Bytes, "argsz", asked.Argsz);
        LoggingReportPayload report = MemoryMarshal.Read<LoggingReportPayload>(data);
        Require(_dma.Dirty.IsOn, "feature", asked.Flags);
        Require(
            BitOperations.IsPow2(report.PageBytes) && report.PageBytes <= MaxReportPageBytes, "page size",
            report.PageBytes);
        Require(
            report.SizeBytes > 0 && report.SizeBytes - 1 <= ulong.MaxValue - report.Address, "length",
            report.SizeBytes);
        ulong pages = ((report.SizeBytes - 1) / report.PageBytes) + 1;
        ulong bitmapBytes = ((pages - 1) / 64 * sizeof(ulong)) + sizeof(ulong);
        Require(bitmapBytes <= MaxBitmapBytes, "length", report.SizeBytes);
        uint needed = (uint)(FeaturePayload.Bytes + LoggingReportPayload.Bytes + (int)bitmapBytes);
        _reply.Write(asked with { Argsz = needed });
        _reply.Write(report);
        if (asked.Argsz >= needed)
        {
            _dma.Dirty.Report(
                report.Address, report.SizeBytes, report.PageBytes, _reply.Append((int)bitmapBytes));
        }
    }

    private ValueTask MigDataRead(VfioUserMessage message)
    {
        const string name = "MIG_DATA_READ";
        MigrationDataPayload asked = message.Read<MigrationDataPayload>();
        RequireArgsz(name, asked.Argsz, MigrationDataPayload.Bytes);
        if (_migration is not (MigrationState.PreCopy or MigrationState.StopCopy))
        {
            throw new ProtocolException(name, "state", $"{_migration}: there is nothing to read");
        }

        if (asked.SizeBytes > VersionCapabilities.MaxTransferBytes || asked.SizeBytes > _client!.MaxDataTransferBytes
            || asked.Argsz < MigrationDataPayload.Bytes + (long)asked.SizeBytes)
        {
            throw new ProtocolException(name, "size", $"{asked.SizeBytes}, argsz {asked.Argsz}");
        }

        try
        {
            // the size is known only afterwards, so the head is filled in then
            Span<byte> reply = _reply.Append(MigrationDataPayload.Bytes + (int)asked.SizeBytes);
            int got = _function.Migration!.ReadData(reply[MigrationDataPayload.Bytes..]);
            MemoryMarshal.Write(
                reply, new MigrationDataPayload((uint)(MigrationDataPayload.Bytes + got), (uint)got));
            _reply.Trim((int)asked.SizeBytes - got);
            return default;
        }
        catch (MigrationException error)
        {
            throw new ProtocolException(name, "stream", error.Message, error.Errno);
        }
    }

    private ValueTask MigDataWrite(VfioUserMessage message)
    {
        const string name = "MIG_DATA_WRITE";
        MigrationDataPayload asked = message.Read<MigrationDataPayload>();
        ReadOnlySpan<byte> data = message.Payload.Span[MigrationDataPayload.Bytes..];
        if (asked.Argsz < MigrationDataPayload.Bytes || asked.SizeBytes != data.Length)
        {
            throw new ProtocolException(name, "size", $"{asked.SizeBytes}, and {data.Length} bytes came");
        }

        if (_migration != MigrationState.Resuming)
        {
            throw new ProtocolException(name, "state", $"{_migration}: nothing is expected");
        }

        try
        {
            _function.Migration!.WriteData(data);
            return default;
        }
        catch (MigrationException error)
        {
            throw new ProtocolException(name, "stream", error.Message, error.Errno);
        }
    }

    private void BeginReply(FeaturePayload asked, int dataBytes)
    {
        uint needed = (uint)(FeaturePayload.Bytes + dataBytes);
        Require(asked.Argsz >= needed, "argsz", asked.Argsz);
        _reply.Write(asked with { Argsz = needed });
    }

    private static void Require(bool condition, string field, ulong value)
    {
        if (!condition)
        {
            throw new ProtocolException(FeatureName, field, $"0x{value:x}");
        }
    }
}

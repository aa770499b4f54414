// Migration and dirty logging, from the client's side.
using System.Runtime.InteropServices;
using Outboard.Pci;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

public sealed partial class VfioUserClient
{
    /// <summary>The device's migration state.</summary>
    public async Task<MigrationState> GetMigrationStateAsync(CancellationToken cancellation = default)
    {
        uint argsz = FeaturePayload.Bytes + DeviceStatePayload.Bytes;
        byte[] ask = Payload(new FeaturePayload(
            argsz, FeaturePayload.Get | (uint)DeviceFeature.MigrationDeviceState));
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.DeviceFeature, ask, null, cancellation).ConfigureAwait(false);
        return reply.Payload.Length >= argsz
            ? (MigrationState)MemoryMarshal.Read<uint>(reply.Payload.Span[FeaturePayload.Bytes..])
            : throw new IOException($"DEVICE_FEATURE: a reply of {reply.Payload.Length} bytes is too short");
    }

    /// <summary>Brings the device into a migration state, by whatever states lie between.</summary>
    public Task SetMigrationStateAsync(MigrationState state, CancellationToken cancellation = default) =>
        SetFeatureAsync(
            DeviceFeature.MigrationDeviceState, Payload(new DeviceStatePayload((uint)state, 0)), cancellation);

    /// <summary>Reads the stream of a device that leaves.</summary>
    /// <returns>Bytes; fewer than there is room for at the end, or (in pre-copy) when there is no more now.</returns>
    public async Task<int> ReadMigrationDataAsync(Memory<byte> destination, CancellationToken cancellation = default)
    {
        int room = Part(destination.Length);
        MigrationDataPayload ask = new((uint)(MigrationDataPayload.Bytes + room), (uint)room);
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.MigDataRead, ask, cancellation).ConfigureAwait(false);
        MigrationDataPayload head = Head<MigrationDataPayload>(reply);

        // libvfio-user sends as much as was asked for, whatever there is of data in it
        ReadOnlyMemory<byte> data = reply.Payload[MigrationDataPayload.Bytes..];
        if (head.SizeBytes > data.Length || head.SizeBytes > room)
        {
            throw new IOException($"MIG_DATA_READ: {data.Length} bytes came, {head.SizeBytes} were announced");
        }

        data[..(int)head.SizeBytes].CopyTo(destination);
        return (int)head.SizeBytes;
    }

    /// <summary>Writes the stream of a device that arrives.</summary>
    public async Task WriteMigrationDataAsync(ReadOnlyMemory<byte> source, CancellationToken cancellation = default)
    {
        while (!source.IsEmpty)
        {
            int count = Part(source.Length);
            MigrationDataPayload head = new((uint)(MigrationDataPayload.Bytes + count), (uint)count);
            using VfioUserMessage reply = await AskAsync(
                VfioUserCommand.MigDataWrite, Payload(head, source.Span[..count]), null, cancellation)
                .ConfigureAwait(false);
            source = source[count..];
        }
    }

    /// <summary>Has the device log the pages that it writes.</summary>
    public Task StartDirtyLogAsync(ulong pageBytes = 4096, CancellationToken cancellation = default) =>
        SetFeatureAsync(
            DeviceFeature.DmaLoggingStart, Payload(new LoggingStartPayload(pageBytes, 0, 0)), cancellation);

    /// <summary>Ends the log.</summary>
    public Task StopDirtyLogAsync(CancellationToken cancellation = default) =>
        SetFeatureAsync(DeviceFeature.DmaLoggingStop, [], cancellation);

    /// <summary>Takes the log of a range: bit n for the page n of it.</summary>
    public async Task<byte[]> TakeDirtyLogAsync(
        ulong guestAddress, ulong sizeBytes, ulong pageBytes = 4096, CancellationToken cancellation = default)
    {
        const int head = FeaturePayload.Bytes + LoggingReportPayload.Bytes;
        ulong words = (((sizeBytes + pageBytes - 1) / pageBytes) + 63) / 64;
        byte[] ask = Payload(
            new FeaturePayload(
                (uint)(head + (int)(words * sizeof(ulong))), FeaturePayload.Get | (uint)DeviceFeature.DmaLoggingReport),
            Payload(new LoggingReportPayload(guestAddress, sizeBytes, pageBytes)));
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.DeviceFeature, ask, null, cancellation).ConfigureAwait(false);
        return reply.Payload.Length >= head
            ? reply.Payload.Span[head..].ToArray()
            : throw new IOException($"DEVICE_FEATURE: a reply of {reply.Payload.Length} bytes is too short");
    }

    /// <summary>Takes memory away, and its log, which is complete then: bit n for the page n of it.</summary>
    /// <exception cref="IOException">The server does not have this, or does not log.</exception>
    public async Task<byte[]> UnmapLoggedAsync(
        ulong guestAddress, ulong sizeBytes, ulong pageBytes = 4096, CancellationToken cancellation = default)
    {
        const int head = DmaUnmapPayload.Bytes + DirtyBitmapPayload.Bytes;
        ulong words = (((sizeBytes + pageBytes - 1) / pageBytes) + 63) / 64;
        ulong bytes = words * sizeof(ulong);
        byte[] ask = Payload(
            new DmaUnmapPayload(head + (uint)bytes, DmaUnmapFlags.GetDirtyBitmap, guestAddress, sizeBytes),
            Payload(new DirtyBitmapPayload(pageBytes, bytes)));
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.DmaUnmap, ask, null, cancellation).ConfigureAwait(false);
        _memory.Remove(guestAddress, sizeBytes);
        return reply.Payload.Length >= head
            ? reply.Payload.Span[head..].ToArray()
            : throw new IOException($"DMA_UNMAP: a reply of {reply.Payload.Length} bytes is too short");
    }

    private async Task SetFeatureAsync(DeviceFeature feature, byte[] data, CancellationToken cancellation)
    {
        FeaturePayload head = new((uint)(FeaturePayload.Bytes + data.Length), FeaturePayload.Set | (uint)feature);
        using VfioUserMessage reply = await AskAsync(
            VfioUserCommand.DeviceFeature, Payload(head, data), null, cancellation).ConfigureAwait(false);
    }
}

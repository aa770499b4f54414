// One method for each request of the front-end.
using System.Runtime.InteropServices;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>GET_FEATURES: virtio features that the back-end offers.</summary>
    public Task<ulong> GetFeaturesAsync(CancellationToken cancellation = default) =>
        RequestValueAsync(FrontendRequest.GetFeatures, cancellation);

    /// <summary>SET_FEATURES.</summary>
    public async Task SetFeaturesAsync(ulong features, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf(features);
        await RequestAsync(FrontendRequest.SetFeatures, payload, cancellation).ConfigureAwait(false);
        Features = features;
    }

    /// <summary>SET_OWNER: begins the session.</summary>
    public Task SetOwnerAsync(CancellationToken cancellation = default) =>
        RequestAsync(FrontendRequest.SetOwner, [], cancellation);

    /// <summary>RESET_OWNER, deprecated.</summary>
    public Task ResetOwnerAsync(CancellationToken cancellation = default) =>
        RequestAsync(FrontendRequest.ResetOwner, [], cancellation);

    /// <summary>SET_MEM_TABLE: replaces all memory by up to 8 memories.</summary>
    public Task SetMemTableAsync(IReadOnlyList<DriverMemory> memories, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memories);
        MemoryRegionPayload[] regions = [.. memories.Select(Describe)];
        byte[] payload = VhostUserMessage.PayloadOf(
            new MemoryTablePayload((uint)memories.Count, 0), MemoryMarshal.AsBytes<MemoryRegionPayload>(regions));
        return RequestAsync(FrontendRequest.SetMemTable, payload, cancellation, [.. memories.Select(Pass)]);
    }

    /// <summary>SET_VRING_NUM.</summary>
    public Task SetVringNumAsync(int index, int size, CancellationToken cancellation = default) =>
        RequestVringAsync(FrontendRequest.SetVringNum, index, (uint)size, cancellation);

    /// <summary>
    /// SET_VRING_ADDR, with addresses of this process; guest physical ones with GPA_ADDRESSES, and those of the bus
    /// behind an IOMMU.
    /// </summary>
    public Task SetVringAddrAsync(
        int index, VringAddresses addresses, DriverMemory memory, CancellationToken cancellation = default) =>
        SetVringAddrAsync(index, addresses, memory, isLogged: false, cancellation);

    /// <summary>
    /// SET_VRING_ADDR, with addresses of this process; also for a running ring, when only its logging changes.
    /// </summary>
    public Task SetVringAddrAsync(
        int index,
        VringAddresses addresses,
        DriverMemory memory,
        bool isLogged,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ulong shift = HasIommu ? 0 : ToldAddress(memory) - memory.BusAddress;
        VringAddressPayload payload = new(
            (uint)index,
            isLogged ? VringAddressPayload.LogFlag : 0,
            addresses.Descriptors + shift,
            addresses.Used + shift,
            addresses.Available + shift,
            addresses.Used);
        return RequestAsync(FrontendRequest.SetVringAddr, VhostUserMessage.PayloadOf(payload), cancellation);
    }

    /// <summary>SET_VRING_BASE: where the device goes on, see <see cref="VringSetup.Base"/>.</summary>
    public Task SetVringBaseAsync(int index, uint ringBase, CancellationToken cancellation = default) =>
        RequestVringAsync(FrontendRequest.SetVringBase, index, ringBase, cancellation);

    /// <summary>GET_VRING_BASE: stops the ring.</summary>
    /// <returns>Where the device stands, see <see cref="VringSetup.Base"/>.</returns>
    public Task<uint> GetVringBaseAsync(int index, CancellationToken cancellation = default) =>
        RequestBaseAsync(FrontendRequest.GetVringBase, index, cancellation);

    /// <summary>
    /// GET_VRING_BASE_SKIP_DRAIN: stops the ring without waiting for requests, which stay in the in-flight region.
    /// </summary>
    /// <returns>Where the device stands, see <see cref="VringSetup.Base"/>.</returns>
    public Task<uint> GetVringBaseSkipDrainAsync(int index, CancellationToken cancellation = default) =>
        RequestBaseAsync(FrontendRequest.GetVringBaseSkipDrain, index, cancellation);

    private async Task<uint> RequestBaseAsync(FrontendRequest request, int index, CancellationToken cancellation)
    {
        string name = RequestTable.Frontend(request).Name;
        byte[] payload = VhostUserMessage.PayloadOf(new VringStatePayload((uint)index, 0));
        ReadOnlyMemory<byte> reply =
            await RequestAsync(request, payload, cancellation).ConfigureAwait(false);
        if (reply.Length != payload.Length)
        {
            throw BrokenReply(name, "size", $"{reply.Length} bytes of reply, 8 are due");
        }

        State.NoteRing(index, ring => ring with { IsStarted = false });
        VringStatePayload state = MemoryMarshal.Read<VringStatePayload>(reply.Span);
        bool isPacked = (Features & VirtioFeatures.RingPacked) != 0;
        return state.Index == (uint)index && (isPacked || state.Num <= ushort.MaxValue)
            ? state.Num
            : throw BrokenReply(
                name, "reply", $"index {state.Index}, base 0x{state.Num:x} for ring {index}");
    }

    /// <summary>SET_VRING_KICK; without an eventfd the back-end polls.</summary>
    public Task SetVringKickAsync(int index, EventFd? kick, CancellationToken cancellation = default) =>
        RequestNotifierAsync(FrontendRequest.SetVringKick, index, kick, cancellation);

    /// <summary>SET_VRING_CALL; without an eventfd the back-end signals nothing.</summary>
    public Task SetVringCallAsync(int index, EventFd? call, CancellationToken cancellation = default) =>
        RequestNotifierAsync(FrontendRequest.SetVringCall, index, call, cancellation);

    /// <summary>SET_VRING_ERR.</summary>
    public async Task SetVringErrAsync(int index, EventFd? error, CancellationToken cancellation = default)
    {
        await RequestNotifierAsync(FrontendRequest.SetVringErr, index, error, cancellation).ConfigureAwait(false);
        State.NoteRing(index, ring => ring with { Errors = error });
    }

    /// <summary>GET_PROTOCOL_FEATURES.</summary>
    public async Task<ProtocolFeatures> GetProtocolFeaturesAsync(CancellationToken cancellation = default) =>
        (ProtocolFeatures)await RequestValueAsync(FrontendRequest.GetProtocolFeatures, cancellation)
            .ConfigureAwait(false);

    /// <summary>SET_PROTOCOL_FEATURES.</summary>
    public async Task SetProtocolFeaturesAsync(ProtocolFeatures features, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf((ulong)features);
        await RequestAsync(FrontendRequest.SetProtocolFeatures, payload, cancellation).ConfigureAwait(false);
        ProtocolFeatures = features;
    }

    /// <summary>GET_QUEUE_NUM.</summary>
    public Task<ulong> GetQueueNumAsync(CancellationToken cancellation = default) =>
        RequestValueAsync(FrontendRequest.GetQueueNum, cancellation);

    /// <summary>SET_VRING_ENABLE.</summary>
    public async Task SetVringEnableAsync(int index, bool enabled, CancellationToken cancellation = default)
    {
        await RequestVringAsync(FrontendRequest.SetVringEnable, index, enabled ? 1U : 0U, cancellation)
            .ConfigureAwait(false);
        State.NoteRing(index, ring => ring with { IsDisabled = !enabled });
    }

    /// <summary>GET_CONFIG.</summary>
    /// <exception cref="ProtocolException">The back-end has no such part of a configuration space.</exception>
    public async Task<byte[]> GetConfigAsync(uint offset, int sizeBytes, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new ConfigPayload(offset, (uint)sizeBytes, 0), new byte[sizeBytes]);
        ReadOnlyMemory<byte> reply =
            await RequestAsync(FrontendRequest.GetConfig, payload, cancellation).ConfigureAwait(false);
        return reply.Length == payload.Length
            ? reply[ConfigPayload.Bytes..].ToArray()
            : throw new ProtocolException(
                "GET_CONFIG", "size", $"{reply.Length} bytes of reply to a request of {payload.Length}");
    }

    /// <summary>SET_CONFIG.</summary>
    public async Task SetConfigAsync(
        uint offset,
        ReadOnlyMemory<byte> bytes,
        bool isMigration = false,
        CancellationToken cancellation = default)
    {
        ConfigPayload head = new(offset, (uint)bytes.Length, isMigration ? ConfigPayload.Migration : 0);
        byte[] payload = VhostUserMessage.PayloadOf(head, bytes.Span);
        await RequestAsync(FrontendRequest.SetConfig, payload, cancellation).ConfigureAwait(false);
        if (!isMigration)
        {
            State.NoteConfig(offset, bytes.Span);
        }
    }

    /// <summary>GET_INFLIGHT_FD: asks for a region in which the back-end records what it holds.</summary>
    /// <exception cref="ProtocolException">The back-end gives none.</exception>
    public async Task<InflightRegion> GetInflightFdAsync(
        int queueCount, int queueSize, CancellationToken cancellation = default)
    {
        InflightPayload wanted = new(0, 0, (ushort)queueCount, (ushort)queueSize, 0);
        SharedMemory? memory = null;
        ReadOnlyMemory<byte> reply = await RequestAsync(
            FrontendRequest.GetInflightFd,
            VhostUserMessage.PayloadOf(wanted),
            message => memory = message.Attachments.Count == 1 ? message.Attachments[0].ToSharedMemory() : null,
            cancellation).ConfigureAwait(false);
        if (memory is not null && reply.Length == InflightPayload.Bytes)
        {
            return new InflightRegion(MemoryMarshal.Read<InflightPayload>(reply.Span), memory);
        }

        memory?.Dispose();
        throw new ProtocolException("GET_INFLIGHT_FD", "reply", $"no region for {queueCount} queues of {queueSize}");
    }

    /// <summary>SET_INFLIGHT_FD: gives the region to the back-end, before rings start.</summary>
    public Task SetInflightFdAsync(InflightRegion region, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(region);
        byte[] payload = VhostUserMessage.PayloadOf(region.Layout);
        return RequestAsync(FrontendRequest.SetInflightFd, payload, cancellation, _channel.Attach(region.Memory));
    }

    /// <summary>RESET_DEVICE: stops all rings, initial device state.</summary>
    public async Task ResetDeviceAsync(CancellationToken cancellation = default)
    {
        await RequestAsync(FrontendRequest.ResetDevice, [], cancellation).ConfigureAwait(false);
        State.NoteReset();
        DropSharedMappings();
    }

    /// <summary>GET_MAX_MEM_SLOTS.</summary>
    public Task<ulong> GetMaxMemSlotsAsync(CancellationToken cancellation = default) =>
        RequestValueAsync(FrontendRequest.GetMaxMemSlots, cancellation);

    /// <summary>ADD_MEM_REG.</summary>
    public Task AddMemRegAsync(DriverMemory memory, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memory);
        byte[] payload = VhostUserMessage.PayloadOf(new SingleMemoryRegionPayload(0, Describe(memory)));
        return RequestAsync(FrontendRequest.AddMemReg, payload, cancellation, Pass(memory));
    }

    /// <summary>REM_MEM_REG: answered when the back-end uses nothing of it any more.</summary>
    public Task RemMemRegAsync(DriverMemory memory, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memory);
        byte[] payload = VhostUserMessage.PayloadOf(new SingleMemoryRegionPayload(0, Describe(memory)));
        return RequestAsync(FrontendRequest.RemMemReg, payload, cancellation);
    }

    /// <summary>SET_STATUS.</summary>
    public async Task SetStatusAsync(VirtioStatus status, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf((ulong)status);
        await RequestAsync(FrontendRequest.SetStatus, payload, cancellation).ConfigureAwait(false);
        State.NoteStatus(status);
    }

    /// <summary>GET_STATUS.</summary>
    public async Task<VirtioStatus> GetStatusAsync(CancellationToken cancellation = default) =>
        (VirtioStatus)await RequestValueAsync(FrontendRequest.GetStatus, cancellation).ConfigureAwait(false);

    private Task RequestVringAsync(FrontendRequest request, int index, uint num, CancellationToken cancellation) =>
        RequestAsync(request, VhostUserMessage.PayloadOf(new VringStatePayload((uint)index, num)), cancellation);

    private Task RequestNotifierAsync(
        FrontendRequest request, int index, EventFd? notifier, CancellationToken cancellation)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new VringDescriptorPayload(index, notifier is not null));
        Attachment[] attachments = notifier is null ? [] : [new DescriptorAttachment(notifier.Descriptor.Duplicate())];
        return RequestAsync(request, payload, cancellation, attachments);
    }

    private MemoryRegionPayload Describe(DriverMemory memory) =>
        new(memory.GuestAddress, memory.SizeBytes, ToldAddress(memory), memory.FileOffset);

    /// <summary>What stands for the memory's first byte where the protocol speaks of user addresses.</summary>
    private ulong ToldAddress(DriverMemory memory) =>
        Has(ProtocolFeatures.GpaAddresses) ? memory.GuestAddress : memory.UserAddress;

    private static DescriptorAttachment Pass(DriverMemory memory) => new(memory.File.Descriptor.Duplicate());
}

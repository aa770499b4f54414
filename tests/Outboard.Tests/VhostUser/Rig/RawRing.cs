// A ring driven over a raw connection: each message of its life by itself, in whatever order a test wants.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

/// <summary>A ring of the fake device. Every message asks for a reply and expects a zero.</summary>
internal sealed class RawRing
{
    public const int Size = 16;
    private const uint RequestBytes = 16;

    private readonly DriverBuffer[] _requests;
    private readonly DriverBuffer[] _answers;
    private uint _added;
    private uint _collected;

    public RawRing(BackendRig rig, DriverMemory memory, int index, ulong features = WirePeer.Features)
        : this(rig, memory, DriverQueue.Create(index, Size, memory, features), index)
    {
    }

    public RawRing(BackendRig rig, DriverMemory memory, DriverQueue ring, int index)
    {
        Memory = memory;
        Index = index;
        Ring = ring;
        _requests = [.. Enumerable.Range(0, Size).Select(_ => memory.Allocate(RequestBytes))];
        _answers = [.. Enumerable.Range(0, Size).Select(_ => memory.Allocate(RequestBytes))];
        Kick = rig.Event();
        Call = rig.Event();
        Error = rig.Event();
    }

    public int Index { get; }

    public DriverMemory Memory { get; }

    /// <summary>From what stands in rings to what stands in messages; null for user addresses.</summary>
    public ulong? AddressShift { get; set; }

    public DriverQueue Ring { get; }

    public EventFd Kick { get; }

    public EventFd Call { get; set; }

    public EventFd Error { get; }

    public VringAddressPayload Addresses
    {
        get
        {
            ulong shift = AddressShift ?? Memory.UserAddress - Memory.GuestAddress;
            return new VringAddressPayload(
                (uint)Index,
                0,
                Ring.Addresses.Descriptors + shift,
                Ring.Addresses.Used + shift,
                Ring.Addresses.Available + shift,
                0);
        }
    }

    public static SingleMemoryRegionPayload Describe(DriverMemory memory) =>
        new(0, new MemoryRegionPayload(memory.GuestAddress, memory.SizeBytes, memory.UserAddress, 0));

    /// <summary>A table of regions.</summary>
    public static byte[] Table(params DriverMemory[] memories) =>
    [
        .. WirePeer.Bytes(new MemoryTablePayload((uint)memories.Length, 0)),
        .. memories.SelectMany(memory => WirePeer.Bytes(Describe(memory).Region)),
    ];

    public static Task AddMemoryAsync(WirePeer peer, DriverMemory memory) =>
        peer.DoAsync(FrontendRequest.AddMemReg, Describe(memory), memory.File.Descriptor);

    public static Task RemoveMemoryAsync(WirePeer peer, DriverMemory memory) =>
        peer.DoAsync(FrontendRequest.RemMemReg, Describe(memory));

    /// <summary>A negotiated connection whose memory and ring 0 are ready to be set up.</summary>
    public static async Task<(WirePeer Peer, RawRing Ring)> ConnectAsync(
        BackendRig rig, int index = 0, ulong features = WirePeer.Features)
    {
        WirePeer peer = await rig.ConnectAsync();
        await peer.NegotiateAsync(features: features);
        DriverMemory memory = rig.Memory();
        await AddMemoryAsync(peer, memory);
        return (peer, new RawRing(rig, memory, index, features));
    }

    public Task NumAsync(WirePeer peer) => StateAsync(peer, FrontendRequest.SetVringNum, Size);

    public Task BaseAsync(WirePeer peer, uint? index = null) =>
        StateAsync(peer, FrontendRequest.SetVringBase, index ?? Ring.InitialBase);

    public Task AddrAsync(WirePeer peer) => peer.DoAsync(FrontendRequest.SetVringAddr, Addresses);

    public Task KickAsync(WirePeer peer) => NotifierAsync(peer, FrontendRequest.SetVringKick, Kick.Descriptor);

    public Task CallAsync(WirePeer peer) => NotifierAsync(peer, FrontendRequest.SetVringCall, Call.Descriptor);

    public Task ErrAsync(WirePeer peer) => NotifierAsync(peer, FrontendRequest.SetVringErr, Error.Descriptor);

    public Task PolledAsync(WirePeer peer) => NotifierAsync(peer, FrontendRequest.SetVringKick, null);

    public Task EnableAsync(WirePeer peer, bool enabled = true) =>
        StateAsync(peer, FrontendRequest.SetVringEnable, enabled ? 1U : 0U);

    /// <summary>Everything but ENABLE, in the order of QEMU.</summary>
    public async Task SetUpAsync(WirePeer peer, uint? index = null)
    {
        await CallAsync(peer);
        await ErrAsync(peer);
        await NumAsync(peer);
        await BaseAsync(peer, index);
        await AddrAsync(peer);
        await KickAsync(peer);
    }

    public async Task StartAsync(WirePeer peer, uint? index = null)
    {
        await SetUpAsync(peer, index);
        await EnableAsync(peer);
    }

    /// <summary>Sends GET_VRING_BASE; the reply is for <see cref="StoppedAsync"/>.</summary>
    public Task BeginStopAsync(WirePeer peer) =>
        peer.SendAsync(
            FrontendRequest.GetVringBase, WirePeer.NoReply, WirePeer.Bytes(new VringStatePayload((uint)Index, 0)));

    public async Task<uint> StoppedAsync(WirePeer peer)
    {
        byte[] reply = await peer.ReplyAsync(FrontendRequest.GetVringBase);
        Assert.Equal(8, reply.Length);
        Assert.Equal((uint)Index, BinaryPrimitives.ReadUInt32LittleEndian(reply));
        return BinaryPrimitives.ReadUInt32LittleEndian(reply.AsSpan(4));
    }

    public async Task<uint> StopAsync(WirePeer peer)
    {
        await BeginStopAsync(peer);
        return await StoppedAsync(peer);
    }

    /// <summary>Makes a request available, without a kick.</summary>
    public void Put(byte first = 1)
    {
        int slot = (int)(_added % Size);
        _requests[slot].Span.Fill(first);
        _answers[slot].Span.Clear();
        Assert.True(Ring.TryAdd([_requests[slot]], [_answers[slot]], _added));
        _added++;
        Ring.Publish();
    }

    /// <summary>Makes a request available and kicks when the device wants that.</summary>
    /// <returns>Whether it wanted.</returns>
    public bool Submit(byte first = 1)
    {
        Put(first);
        bool wanted = Ring.ShouldKick();
        if (wanted)
        {
            Kick.Signal();
        }

        return wanted;
    }

    /// <summary>Waits for the next answer, an echo.</summary>
    public async Task ExpectEchoAsync(byte first = 1)
    {
        await ExpectUsedAsync();
        int slot = (int)(_collected % Size);
        Assert.Equal(_requests[slot].Span, _answers[slot].Span);
        Assert.Equal(first, _answers[slot].Span[0]);
        _collected++;
    }

    /// <summary>Waits until a chain is used, whatever is in it.</summary>
    public Task ExpectUsedAsync() =>
        Eventually.TrueAsync(() => Ring.TryCollect(out _, out _), $"ring {Index}: a used chain");

    public bool HasUsed() => Ring.TryCollect(out _, out _);

    public async Task RoundTripAsync(byte first = 1)
    {
        Submit(first);
        await ExpectEchoAsync(first);
    }

    public static byte[] NotifierPayload(int index, bool hasDescriptor) =>
        WirePeer.Bytes(new VringDescriptorPayload(index, hasDescriptor));

    private Task StateAsync(WirePeer peer, FrontendRequest request, uint num) =>
        peer.DoAsync(request, new VringStatePayload((uint)Index, num));

    private Task NotifierAsync(WirePeer peer, FrontendRequest request, FileDescriptor? descriptor) => peer.DoBytesAsync(
        request, NotifierPayload(Index, descriptor is not null), descriptor is null ? [] : [descriptor]);
}

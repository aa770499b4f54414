// Rings behind an IOMMU, seen from the wire: a queue that lacks a translation asks, waits and holds nobody up.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class IommuTests : BackendTest
{
    private const ulong Features = WirePeer.Features | VirtioFeatures.AccessPlatform;
    private const ulong Packed = Features | VirtioFeatures.RingPacked;
    private const ulong Bus = 0xABCD_0000_0000;
    private const ulong Page = 4096;

    private WirePeer _peer = null!;
    private WirePeer _asking = null!;
    private DriverMemory _memory = null!;
    private RawRing _other = null!;

    [Theory]
    [InlineData(Features)]
    [InlineData(Packed)]
    public async Task Ring_and_buffers_are_asked_for_page_by_page(ulong features)
    {
        RawRing ring = await ConnectAsync(features);
        await ring.StartAsync(_peer);
        ring.Submit();
        List<ulong> pages = await AnswerUntilUsedAsync(ring);
        Assert.Equal(pages.Distinct(), pages);
        ring.Submit();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task What_is_known_is_not_asked_for()
    {
        RawRing ring = await StartedAsync();
        await ring.RoundTripAsync(2);
        await ring.StopAsync(_peer);
        await _peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], Rig.SocketPair().Passed);
        await _asking.ExpectClosedAsync();
    }

    [Fact]
    public async Task Everything_that_a_chain_lacks_is_asked_for_in_one_go()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer[] buffers = [.. Enumerable.Range(0, 5).Select(_ => _memory.Allocate(64, (uint)Page))];
        DriverBuffer two = _memory.Allocate(2 * (uint)Page, (uint)Page);
        Assert.True(ring.Ring.TryAdd(buffers, [two], 7));
        ring.Ring.Publish();
        ring.Kick.Signal();
        HashSet<ulong> pages = [];
        for (int i = 0; i < 7; i++)
        {
            IotlbPayload miss = await MissAsync();
            pages.Add(miss.Iova);
            Assert.Equal(miss.Iova >= two.GuestAddress ? 2 : 1, miss.Permission);
        }

        Assert.Equal(7, pages.Count);
        foreach (ulong page in pages)
        {
            await TellAsync(page);
            await ReplyAsync(0);
        }

        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task One_queue_waits_and_the_other_and_the_control_loop_go_on()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer strange = _memory.Allocate(64, (uint)Page);
        Add(ring, strange);
        IotlbPayload miss = await MissAsync();
        await _other.StartAsync(_peer);
        for (byte i = 1; i < 20; i++)
        {
            await _other.RoundTripAsync(i);
        }

        await _peer.ExpectServedAsync();
        Assert.False(ring.HasUsed());
        await TellAsync(miss.Iova);
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Ring_that_waits_is_stopped_at_once_and_serves_the_chain_later()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer strange = _memory.Allocate(64, (uint)Page);
        Add(ring, strange);
        await MissAsync();
        Assert.Equal(0U, await ring.StopAsync(_peer));
        await TellAsync(strange.GuestAddress);
        await ring.StartAsync(_peer, 0);
        await ring.ExpectUsedAsync();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Page_that_the_front_end_does_not_know_faults_the_queue(bool isClosed)
    {
        RawRing ring = await StartedAsync();
        Add(ring, _memory.Allocate(64, (uint)Page));
        await MissAsync();
        if (isClosed)
        {
            _asking.Shutdown();
        }
        else
        {
            await ReplyAsync(1);
        }

        await ExpectFaultAsync(ring);
        Assert.Equal(0U, await ring.StopAsync(_peer));
    }

    [Fact]
    public async Task Write_through_a_translation_for_reading_faults_the_queue_and_is_told()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer answer = _memory.Allocate(64, (uint)Page);
        await TellAsync(answer.GuestAddress, permission: 1);
        Assert.True(ring.Ring.TryAdd([], [answer], 1));
        ring.Ring.Publish();
        ring.Kick.Signal();
        IotlbPayload miss = await MissAsync();
        Assert.Equal(2, miss.Permission);
        await TellAsync(miss.Iova, permission: 1);
        await ReplyAsync(0);
        IotlbPayload failure = await MissAsync(IotlbMessageType.AccessFail);
        Assert.Equal(answer.GuestAddress, failure.Iova);
        await ExpectFaultAsync(ring);
    }

    [Fact]
    public async Task Page_that_changed_its_meaning_is_asked_for_with_the_new_access_only()
    {
        // The reply to the first question is late: page and permission have been withdrawn and given anew meanwhile.
        RawRing ring = await StartedAsync();
        DriverBuffer buffer = _memory.Allocate(64, (uint)Page);
        Assert.True(ring.Ring.TryAdd([], [buffer], 1));
        ring.Ring.Publish();
        ring.Kick.Signal();
        Assert.Equal(2, (await MissAsync()).Permission);
        await TellAsync(buffer.GuestAddress, permission: 2);
        await ring.ExpectUsedAsync();
        await WithdrawAsync(buffer.GuestAddress, Page);
        Add(ring, buffer);
        IotlbPayload miss = await MissAsync();
        Assert.Equal((buffer.GuestAddress, (byte)1), (miss.Iova, miss.Permission));
        await TellAsync(buffer.GuestAddress, permission: 1);
        await ReplyAsync(0);
        await ReplyAsync(0);
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Question_that_a_replaced_channel_left_open_is_asked_on_the_next_one()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer buffer = _memory.Allocate(64, (uint)Page);
        Add(ring, buffer);
        await MissAsync();
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await _peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        _asking = kept;
        Assert.Equal(buffer.GuestAddress, (await MissAsync()).Iova);
        await TellAsync(buffer.GuestAddress);
        await ReplyAsync(0);
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Half_a_page_is_told_and_the_other_half_never()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer whole = _memory.Allocate((uint)Page, (uint)Page);
        Add(ring, whole);
        await MissAsync();
        await TellAsync(whole.GuestAddress, Page / 2);
        await ReplyAsync(0);
        IotlbPayload rest = await MissAsync();
        Assert.Equal(whole.GuestAddress, rest.Iova);
        await TellAsync(whole.GuestAddress, Page / 2);
        await ReplyAsync(0);
        await _peer.ExpectServedAsync();
        Assert.False(ring.HasUsed());
        await TellAsync(whole.GuestAddress);
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Withdrawal_waits_for_what_is_in_flight_and_translations_go_on_behind_it()
    {
        RawRing ring = await StartedAsync();
        Rig.Device.Holds = true;
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        await BeginWithdrawAsync(Bus, _memory.SizeBytes);
        await BeginTellAsync(Bus, _memory.SizeBytes);
        Assert.Empty(Rig.Log.Warnings);
        Assert.Equal(1, Rig.Device.Held);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        Assert.Equal(WirePeer.Bytes(0UL), await _peer.ReplyAsync(FrontendRequest.IotlbMsg));
        Assert.Equal(WirePeer.Bytes(0UL), await _peer.ReplyAsync(FrontendRequest.IotlbMsg));
        await ring.ExpectUsedAsync();
        ring.Submit();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Withdrawal_of_other_pages_does_not_wait()
    {
        RawRing ring = await StartedAsync();
        Rig.Device.Holds = true;
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        await WithdrawAsync(Bus + (_memory.SizeBytes / 2), _memory.SizeBytes / 2);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Withdrawal_while_a_chain_waits_for_a_translation_is_answered()
    {
        RawRing ring = await StartedAsync();
        DriverBuffer known = _memory.Allocate(64, (uint)Page);
        DriverBuffer strange = _memory.Allocate(64, (uint)Page);
        await TellAsync(known.GuestAddress);
        Add(ring, known, strange);
        IotlbPayload miss = await MissAsync();
        Assert.Equal(strange.GuestAddress, miss.Iova);
        await WithdrawAsync(known.GuestAddress, Page);
        await TellAsync(strange.GuestAddress);
        await ReplyAsync(0);
        Assert.Equal(known.GuestAddress, (await MissAsync()).Iova);
        await TellAsync(known.GuestAddress);
        await ReplyAsync(0);
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Ring_whose_translation_is_withdrawn_is_asked_for_again()
    {
        RawRing ring = await StartedAsync();
        await ring.RoundTripAsync(1);
        await WithdrawAsync(0, 0);
        ring.Put(2);
        ring.Kick.Signal();
        await AnswerUntilUsedAsync(ring);
        ring.Submit();
        await ring.ExpectUsedAsync();
        Assert.Equal(3U, await ring.StopAsync(_peer));
    }

    [Theory]
    [InlineData(Features)]
    [InlineData(Packed)]
    public async Task Ring_that_is_scattered_over_pages_is_served(ulong features)
    {
        // Each page is a region of its own, in reverse order of user addresses.
        await ConnectAsync(features, registers: false);
        for (ulong page = 0; page < 8; page++)
        {
            ulong user = 0x7f00_0000_0000 - (page * 0x10000);
            MemoryRegionPayload region = new((page + 1) << 20, Page, user, page * Page);
            await _peer.DoAsync(
                FrontendRequest.AddMemReg, new SingleMemoryRegionPayload(0, region), _memory.File.Descriptor);
            ulong iova = Bus + (page * Page);
            Assert.Equal(0UL, await AskAsync(new IotlbPayload(iova, Page, user, 3, IotlbMessageType.Update)));
        }

        _memory.Allocate((uint)Page - 128, 1);
        RawRing ring = new(Rig, _memory, 0, features) { AddressShift = 0 };
        await ring.StartAsync(_peer);
        for (byte i = 1; i < 40; i++)
        {
            await ring.RoundTripAsync(i);
        }
    }

    [Fact]
    public async Task Translation_that_leads_out_of_memory_that_was_removed_faults_the_queue()
    {
        RawRing ring = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: 0x2_0000_0000);
        await RawRing.AddMemoryAsync(_peer, second);
        await AskAsync(new IotlbPayload(0x5000, Page, second.UserAddress, 3, IotlbMessageType.Update));
        await RawRing.RemoveMemoryAsync(_peer, second);
        DriverBuffer gone = new(0x5000, second.Allocate(64).Memory);
        Add(ring, gone);
        await ExpectFaultAsync(ring);
    }

    [Fact]
    public async Task Chain_that_needs_more_translations_than_are_kept_is_served()
    {
        const int Pages = Outboard.Memory.IommuTable.MaxEntries + 500;
        RawRing ring = await ConnectAsync(Features, memoryBytes: (Pages + 32) * Page);
        await TellAsync(Bus, 16 * Page);
        await ring.StartAsync(_peer);
        _memory.Allocate(1, 16 * (uint)Page);
        DriverBuffer large = _memory.Allocate(Pages * (uint)Page, (uint)Page);
        Add(ring, large);
        for (int i = 0; i < Pages; i++)
        {
            await AnswerAsync();
        }

        await ring.ExpectUsedAsync();
    }

    private void Add(RawRing ring, params DriverBuffer[] readable)
    {
        Assert.True(ring.Ring.TryAdd(readable, [], 99));
        ring.Ring.Publish();
        ring.Kick.Signal();
    }

    private async Task<RawRing> ConnectAsync(
        ulong features, bool registers = true, ulong memoryBytes = 64 * Page)
    {
        _peer = await Rig.ConnectAsync();
        await _peer.NegotiateAsync(features: features);
        (FileDescriptor passed, _asking) = Rig.SocketPair();
        await _peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        _memory = Rig.Own(new DriverMemory(memoryBytes, busAddress: Bus));
        if (!registers)
        {
            return null!;
        }

        await RawRing.AddMemoryAsync(_peer, _memory);
        return new RawRing(Rig, _memory, 0, features) { AddressShift = 0 };
    }

    /// <summary>A ring that runs, with the first half of the memory translated; what is allocated next is not.
    /// </summary>
    private async Task<RawRing> StartedAsync()
    {
        RawRing ring = await ConnectAsync(Features);
        await TellAsync(Bus, _memory.SizeBytes / 2);
        await ring.StartAsync(_peer);
        _other = new RawRing(Rig, _memory, 1, Features) { AddressShift = 0 };
        _memory.Allocate(1, (uint)_memory.SizeBytes / 2);
        return ring;
    }

    private async Task<ulong> AskAsync(IotlbPayload payload) =>
        BitConverter.ToUInt64(await _peer.AskAsync(FrontendRequest.IotlbMsg, WirePeer.Bytes(payload)));

    private async Task TellAsync(ulong iova, ulong size = Page, byte permission = 3) => Assert.Equal(
        0UL,
        await AskAsync(new IotlbPayload(
            iova, size, iova - Bus + _memory.UserAddress, permission, IotlbMessageType.Update)));

    private Task BeginTellAsync(ulong iova, ulong size) => BeginAsync(
        new IotlbPayload(iova, size, iova - Bus + _memory.UserAddress, 3, IotlbMessageType.Update));

    private async Task WithdrawAsync(ulong iova, ulong size) =>
        Assert.Equal(0UL, await AskAsync(new IotlbPayload(iova, size, 0, 0, IotlbMessageType.Invalidate)));

    private Task BeginWithdrawAsync(ulong iova, ulong size) =>
        BeginAsync(new IotlbPayload(iova, size, 0, 0, IotlbMessageType.Invalidate));

    private Task BeginAsync(IotlbPayload payload) =>
        _peer.SendAsync(FrontendRequest.IotlbMsg, WirePeer.NeedReply, WirePeer.Bytes(payload));

    private async Task<IotlbPayload> MissAsync(IotlbMessageType type = IotlbMessageType.Miss)
    {
        WireMessage message = await _asking.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.IotlbMsg, message.Request);
        IotlbPayload payload = System.Runtime.InteropServices.MemoryMarshal.Read<IotlbPayload>(message.Payload);
        Assert.Equal(type, payload.Type);
        Assert.Equal(type == IotlbMessageType.Miss ? WirePeer.NeedReply : WirePeer.NoReply, message.Flags);
        return payload;
    }

    private Task ReplyAsync(ulong status) => _asking.SendAsync(
        WirePeer.Frame((uint)BackendRequest.IotlbMsg, WirePeer.ReplyFlags, WirePeer.Bytes(status)));

    /// <summary>Answers the next miss as QEMU does: the update first, then the reply.</summary>
    private async Task<ulong> AnswerAsync()
    {
        IotlbPayload miss = await MissAsync();
        await TellAsync(miss.Iova);
        await ReplyAsync(0);
        return miss.Iova;
    }

    /// <summary>Answers every miss until a chain is used; the channel is not to be read by others afterwards.</summary>
    private async Task<List<ulong>> AnswerUntilUsedAsync(RawRing ring)
    {
        List<ulong> pages = [];
        while (true)
        {
            Task<IotlbPayload> asked = MissAsync();
            bool isUsed = false;
            await Eventually.TrueAsync(() => (isUsed = ring.HasUsed()) || asked.IsCompleted, "a miss or a used chain");
            if (isUsed)
            {
                return pages;
            }

            pages.Add((await asked).Iova);
            await TellAsync(pages[^1]);
            await ReplyAsync(0);
        }
    }

    private async Task ExpectFaultAsync(RawRing ring)
    {
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
        ulong status = await _peer.AskValueAsync(FrontendRequest.GetStatus);
        Assert.NotEqual(0UL, status & (ulong)VirtioStatus.DeviceNeedsReset);
    }
}

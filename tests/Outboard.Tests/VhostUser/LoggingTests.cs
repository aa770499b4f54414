// A migration's log over the wire: switched on, elsewhere and off while the ring runs.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class LoggingTests : BackendTest
{
    private const ulong Logging = WirePeer.Features | VirtioFeatures.LogAll;

    /// <summary>In the log, behind guest memory.</summary>
    private const ulong RingAddress = 0x1_4000_0000;

    [Theory]
    [InlineData(WirePeer.Features)]
    [InlineData(WirePeer.Features | VirtioFeatures.RingPacked)]
    public async Task Running_ring_is_logged_from_the_feature_bit_on_until_it_is_cleared(ulong features)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: features);
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        Assert.Empty(log.Harvest());

        await peer.DoAsync(FrontendRequest.SetFeatures, features | VirtioFeatures.LogAll);
        await ring.RoundTripAsync();
        Assert.NotEmpty(log.Harvest());

        await peer.DoAsync(FrontendRequest.SetFeatures, features);
        await ring.RoundTripAsync();
        Assert.Empty(log.Harvest());
    }

    [Fact]
    public async Task Log_may_come_after_the_feature_bit()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        TestLog log = new(Rig);
        await ring.StartAsync(peer);
        await log.SendAsync(peer);
        await ring.RoundTripAsync();
        Assert.NotEmpty(log.Harvest());
    }

    [Theory]
    [InlineData(Logging)]
    [InlineData(Logging | VirtioFeatures.RingPacked)]
    public async Task Ring_is_logged_where_the_front_end_says_while_its_flag_is_set(ulong features)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: features);
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await ring.StartAsync(peer);
        ulong page = RingAddress / DirtyLog.PageBytes;
        await ring.RoundTripAsync();
        Assert.DoesNotContain(page, log.Harvest());

        await peer.DoAsync(FrontendRequest.SetVringAddr, ring.Addresses with { Flags = 1, Log = RingAddress });
        await ring.RoundTripAsync();
        Assert.Contains(page, log.Harvest());

        await ring.AddrAsync(peer);
        log.Harvest();
        await ring.RoundTripAsync();
        Assert.DoesNotContain(page, log.Harvest());
    }

    [Fact]
    public async Task Flag_that_was_set_before_the_start_counts()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await ring.SetUpAsync(peer);
        await peer.DoAsync(FrontendRequest.SetVringAddr, ring.Addresses with { Flags = 1, Log = RingAddress });
        await ring.EnableAsync(peer);
        await ring.RoundTripAsync();
        Assert.Contains(RingAddress / DirtyLog.PageBytes, log.Harvest());
    }

    [Fact]
    public async Task Another_log_takes_over_at_its_reply()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await ring.StartAsync(peer);
        for (byte i = 0; i < 20; i++)
        {
            TestLog next = new(Rig);
            await next.SendAsync(peer);
            log.Harvest();
            await ring.RoundTripAsync(i);
            Assert.Empty(log.Harvest());
            Assert.NotEmpty(next.Harvest());
            log = next;
        }
    }

    [Fact]
    public async Task Request_that_was_taken_before_is_logged_when_it_ends()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        TestLog log = new(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "the device holds the request");
        await log.SendAsync(peer);
        await peer.DoAsync(FrontendRequest.SetFeatures, Logging);
        Assert.Empty(log.Harvest());
        Rig.Device.TakeHeld().Complete(16);
        await ring.ExpectUsedAsync();
        Assert.NotEmpty(log.Harvest());
    }

    [Fact]
    public async Task Notifier_is_signalled_after_marks()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        EventFd marked = Rig.Event();
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await peer.DoBytesAsync(FrontendRequest.SetLogFd, [], marked.Descriptor);
        await ring.StartAsync(peer);
        marked.Take();
        await ring.RoundTripAsync();
        await Eventually.TrueAsync(() => marked.Take() > 0, "the notifier is signalled");

        // It stays with the next log.
        await new TestLog(Rig).SendAsync(peer);
        marked.Take();
        await ring.RoundTripAsync();
        await Eventually.TrueAsync(() => marked.Take() > 0, "the notifier is signalled");
    }

    [Fact]
    public async Task Log_outlives_a_reset_of_the_device()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        TestLog log = new(Rig);
        await log.SendAsync(peer);
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        Assert.NotEmpty(log.Harvest());
    }

    [Fact]
    public async Task Ring_that_would_be_logged_outside_the_log_is_refused()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Logging);
        await new TestLog(Rig).SendAsync(peer);
        foreach (ulong address in (ulong[])[TestLog.End, TestLog.End - 4, ulong.MaxValue, ulong.MaxValue - 200])
        {
            await ring.NumAsync(peer);
            VringAddressPayload payload = ring.Addresses with { Flags = 1, Log = address };
            await peer.RefusedAsync(FrontendRequest.SetVringAddr, WirePeer.Bytes(payload));
            await peer.DoAsync(FrontendRequest.SetVringAddr, payload with { Flags = 0 });
        }

        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Memory_behind_the_log_is_refused_until_there_is_a_larger_one()
    {
        (WirePeer peer, _) = await RawRing.ConnectAsync(Rig, features: Logging);
        DriverMemory high = Rig.Memory(guestAddress: TestLog.End);
        await new TestLog(Rig).SendAsync(peer);
        byte[] region = WirePeer.Bytes(RawRing.Describe(high));
        await peer.RefusedAsync(FrontendRequest.AddMemReg, region, high.File.Descriptor);
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features);
        await RawRing.AddMemoryAsync(peer, high);
        await peer.RefusedAsync(FrontendRequest.SetFeatures, WirePeer.Bytes(Logging));
        await new TestLog(Rig, 2 * TestLog.End).SendAsync(peer);
        await peer.DoAsync(FrontendRequest.SetFeatures, Logging);
    }

    [Fact]
    public async Task Device_is_handed_over_when_all_rings_are_stopped_with_the_log_on()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        RawRing other = new(Rig, ring.Memory, 1);
        await new TestLog(Rig).SendAsync(peer);
        await ring.StartAsync(peer);
        await other.StartAsync(peer);
        uint index = await ring.StopAsync(peer);
        uint otherIndex = await other.StopAsync(peer);
        Assert.True(Rig.Device.IsTakenOver);

        await ring.StartAsync(peer, index);
        await other.StartAsync(peer, otherIndex);
        await peer.DoAsync(FrontendRequest.SetFeatures, Logging);
        index = await ring.StopAsync(peer);
        Assert.True(Rig.Device.IsTakenOver);
        otherIndex = await other.StopAsync(peer);
        Assert.False(Rig.Device.IsTakenOver);

        // The migration failed after all.
        await ring.StartAsync(peer, index);
        Assert.True(Rig.Device.IsTakenOver);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Ring_of_a_device_that_another_host_has_is_refused()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.IsElsewhere = true;
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        byte[] payload = RawRing.NotifierPayload(0, hasDescriptor: true);
        await peer.RefusedAsync(FrontendRequest.SetVringKick, payload, ring.Kick.Descriptor);
        Rig.Device.IsElsewhere = false;
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Without_the_protocol_feature_nobody_offers_to_log()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(FrontendRequest.GetFeatures);
        Assert.NotEqual(0UL, offered & VirtioFeatures.LogAll);
        Assert.Equal(0UL, Rig.Device.NegotiatedFeatures & VirtioFeatures.LogAll);
    }

    /// <summary>A bitmap of the test's.</summary>
    private sealed class TestLog
    {
        internal const ulong End = 0x1_8000_0000;

        private readonly FileDescriptor _file;
        private readonly DirtyLog _log;
        private readonly ulong _bytes;

        internal TestLog(BackendRig rig, ulong end = End)
        {
            _bytes = end / DirtyLog.PageBytes / 8;
            _file = rig.MemoryFile(_bytes);
            _log = rig.Own(new DirtyLog(MemoryMapping.Map(_file, 0, _bytes)));
        }

        internal async Task SendAsync(WirePeer peer) => Assert.Equal(
            WirePeer.Bytes(0UL),
            await peer.AskAsync(
                FrontendRequest.SetLogBase, WirePeer.Bytes(new LogPayload(_bytes, 0)), WirePeer.NoReply, _file));

        internal List<ulong> Harvest()
        {
            List<ulong> pages = [];
            _log.Harvest(pages);
            return pages;
        }
    }
}

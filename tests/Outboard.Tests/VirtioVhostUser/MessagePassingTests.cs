// What passes between a front-end and a driver, message by message: what is relayed as it is, what is rewritten, what
// comes as a resource, and what does not pass.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public class MessagePassingTests : DeviceTest
{
    private const int Page = 4096;

    public static TheoryData<FrontendRequest> Requests =>
        [.. RequestTable.FrontendRows.Select(row => (FrontendRequest)row.Id)];

    [Theory]
    [MemberData(nameof(Requests))]
    public async Task Each_request_passes_or_is_refused(FrontendRequest request)
    {
        using WirePeer peer = await NegotiateAsync();
        RequestRow row = RequestTable.Frontend(request);
        byte[] payload = PayloadOf(request, row);
        FileDescriptor[] descriptors = DescriptorsOf(request);
        if (request == FrontendRequest.RemMemReg)
        {
            await PassAsync(
                peer, FrontendRequest.AddMemReg, payload, DescriptorsOf(FrontendRequest.AddMemReg));
            await AcknowledgeAsync(peer, FrontendRequest.AddMemReg);
        }

        bool passes = MessagePolicy.Passes(request)
            && (row.Gate & ~MessagePolicy.PassedFor(Rig.Access.Features)) == 0;
        await peer.SendAsync(request, WirePeer.NeedReply, payload, descriptors);
        if (passes)
        {
            DriverFrame frame = await Driver.ReceiveAsync(request);
            Assert.Equal(WirePeer.NeedReply, (uint)frame.Flags);
            Assert.Equal(payload.Length, frame.Payload.Length);
            await AnswerAsync(peer, row);
        }
        else if (row.HasOwnReply && FailureReplies.Of(request) is null)
        {
            await peer.ExpectClosedAsync();
        }
        else
        {
            byte[] refusal = await peer.ReplyAsync(request);
            Assert.Equal(FailureReplies.Of(request) ?? WirePeer.Bytes(1UL), refusal);
            Assert.Null(Driver.TryReceive());
        }

        Assert.Equal(0, NeedsResets);
    }

    [Theory]
    [MemberData(nameof(Requests))]
    public async Task Each_request_of_a_wrong_size_is_refused(FrontendRequest request)
    {
        using WirePeer peer = await NegotiateAsync();
        RequestRow row = RequestTable.Frontend(request);
        int wrong = Enumerable.Range(1, 5000).First(size => !row.Size.Allows((uint)size));
        await peer.SendAsync(request, WirePeer.NeedReply, new byte[wrong]);
        if (row.HasOwnReply && FailureReplies.Of(request) is null)
        {
            await peer.ExpectClosedAsync();
        }
        else
        {
            Assert.NotEqual(WirePeer.Bytes(0UL), await peer.ReplyAsync(request));
        }

        Assert.Null(Driver.TryReceive());
    }

    [Theory]
    [InlineData(FrontendRequest.SetVringKick)]
    [InlineData(FrontendRequest.SetVringCall)]
    [InlineData(FrontendRequest.SetVringErr)]
    [InlineData(FrontendRequest.SetLogFd)]
    [InlineData(FrontendRequest.SetBackendReqFd)]
    [InlineData(FrontendRequest.SetMemTable)]
    [InlineData(FrontendRequest.AddMemReg)]
    [InlineData(FrontendRequest.SetInflightFd)]
    public async Task Descriptors_that_are_missing_or_too_many(FrontendRequest request)
    {
        using WirePeer peer = await NegotiateAsync();
        byte[] payload = PayloadOf(request, RequestTable.Frontend(request));
        FileDescriptor[] right = DescriptorsOf(request);
        await peer.RefusedAsync(request, payload);
        await peer.RefusedAsync(request, payload, [.. right, Rig.Own(new EventFd()).Descriptor]);
        Assert.Null(Driver.TryReceive());
    }

    [Fact]
    public async Task Rings_beyond_the_last_are_refused()
    {
        using WirePeer peer = await NegotiateAsync();
        uint beyond = (uint)Rig.Device.Rings;
        foreach (FrontendRequest request in (FrontendRequest[])
            [FrontendRequest.SetVringNum, FrontendRequest.SetVringBase, FrontendRequest.SetVringEnable])
        {
            await peer.RefusedAsync(request, WirePeer.Bytes(new VringStatePayload(beyond, 1)));
            await peer.RefusedAsync(request, WirePeer.Bytes(new VringStatePayload(uint.MaxValue, 1)));
        }

        VringAddressPayload address = new(beyond, 0, 0, 0, 0, 0);
        await peer.RefusedAsync(FrontendRequest.SetVringAddr, WirePeer.Bytes(address));
        await peer.RefusedAsync(
            FrontendRequest.SetVringKick, RawRing.NotifierPayload((int)beyond, true),
            Rig.Own(new EventFd()).Descriptor);
    }

    [Fact]
    public async Task An_unknown_request_is_refused_or_ends_the_connection()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.RefusedAsync((FrontendRequest)999, []);
        await peer.SendAsync((FrontendRequest)999, WirePeer.NoReply, []);
        await peer.ExpectClosedAsync();
        await Driver.ExpectStatusAsync(0);
    }

    [Fact]
    public async Task A_reply_where_a_request_is_due_ends_the_connection()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.ReplyFlags, []);
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task Features_that_were_not_offered_are_refused()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.RefusedAsync(
            FrontendRequest.SetProtocolFeatures, WirePeer.Bytes((ulong)ProtocolFeatures.HostNotifier));
    }

    [Fact]
    public async Task The_number_of_rings_is_what_the_device_has()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.SendAsync(FrontendRequest.GetQueueNum, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetQueueNum);
        Driver.Reply(FrontendRequest.GetQueueNum, 200UL);
        Assert.Equal(
            WirePeer.Bytes((ulong)Rig.Device.Rings), await peer.ReplyAsync(FrontendRequest.GetQueueNum));
    }

    [Fact]
    public async Task Refusals_keep_their_places_among_replies()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await peer.SendAsync((FrontendRequest)999, WirePeer.NeedReply, []);
        await peer.SendAsync(FrontendRequest.GetQueueNum, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        await Driver.ReceiveAsync(FrontendRequest.GetQueueNum);
        Driver.Reply(FrontendRequest.GetFeatures, 1UL);
        Driver.Reply(FrontendRequest.GetQueueNum, 2UL);
        Assert.Equal(WirePeer.Bytes(1UL), await peer.ReplyAsync(FrontendRequest.GetFeatures));
        Assert.Equal(WirePeer.Bytes(1UL), await peer.ReplyAsync((FrontendRequest)999));
        Assert.Equal(WirePeer.Bytes(2UL), await peer.ReplyAsync(FrontendRequest.GetQueueNum));
    }

    [Fact]
    public async Task A_table_lies_where_the_driver_is_told()
    {
        using WirePeer peer = await NegotiateAsync();
        for (int generation = 0; generation < 5; generation++)
        {
            (byte[] table, FileDescriptor[] files) = Table(3, (byte)(generation + 1));
            DriverFrame frame = await PassAsync(peer, FrontendRequest.SetMemTable, table, files);
            ReadOnlySpan<byte> rest = frame.Payload.Span[MemoryTablePayload.Bytes..];
            MemoryRegionPayload[] told = MemoryMarshal.Cast<byte, MemoryRegionPayload>(rest).ToArray();
            for (int i = 0; i < told.Length; i++)
            {
                Assert.Equal((generation + 1) * 16 + i, Look(told[i].MmapOffset));
            }

            await AcknowledgeAsync(peer, FrontendRequest.SetMemTable);
            Assert.Equal(3, Rig.Device.Windows.Count);
        }
    }

    [Fact]
    public async Task A_table_that_the_driver_refuses_leaves_the_one_before()
    {
        using WirePeer peer = await NegotiateAsync();
        (byte[] first, FileDescriptor[] files) = Table(2, 1);
        DriverFrame frame = await PassAsync(peer, FrontendRequest.SetMemTable, first, files);
        await AcknowledgeAsync(peer, FrontendRequest.SetMemTable);
        ulong place = MemoryMarshal.Read<MemoryRegionPayload>(frame.Payload.Span[8..]).MmapOffset;
        (byte[] second, FileDescriptor[] others) = Table(3, 2);
        await PassAsync(peer, FrontendRequest.SetMemTable, second, others);
        await AcknowledgeAsync(peer, FrontendRequest.SetMemTable, 1);
        Assert.Equal(2, Rig.Device.Windows.Count);
        Assert.Equal(16, Look(place));
    }

    [Fact]
    public async Task Memory_that_does_not_fit_is_refused_and_nothing_stays()
    {
        using WirePeer peer = await NegotiateAsync();
        ulong size = ApplianceRig.Options.WindowBytes;
        FileDescriptor file = Rig.Own(MemFd.Create("outboard-large", size));
        SingleMemoryRegionPayload large = new(0, new MemoryRegionPayload(0, size, 0, 0));
        await peer.RefusedAsync(FrontendRequest.AddMemReg, WirePeer.Bytes(large), file);
        SingleMemoryRegionPayload beyond = new(0, new MemoryRegionPayload(0, 2 * Page, 0, size - Page));
        await peer.RefusedAsync(FrontendRequest.AddMemReg, WirePeer.Bytes(beyond), file);
        SingleMemoryRegionPayload empty = new(0, new MemoryRegionPayload(0, 0, 0, 0));
        await peer.RefusedAsync(FrontendRequest.AddMemReg, WirePeer.Bytes(empty), file);
        await peer.RefusedAsync(
            FrontendRequest.AddMemReg, WirePeer.Bytes(large with { Region = large.Region with { SizeBytes = Page } }),
            Rig.Own(new EventFd()).Descriptor);
        Assert.Equal(0, Rig.Device.Windows.Count);
        Assert.Contains(Rig.Log.Warnings, line => line.Contains("make it larger", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_region_within_a_page_is_found_at_its_first_byte()
    {
        using WirePeer peer = await NegotiateAsync();
        FileDescriptor file = Rig.Own(MemFd.Create("outboard-odd", 4 * Page));
        MemFd.Write(file, Page + 100, [0x77]);
        SingleMemoryRegionPayload odd = new(0, new MemoryRegionPayload(0, 1000, 0, Page + 100));
        DriverFrame frame = await PassAsync(peer, FrontendRequest.AddMemReg, WirePeer.Bytes(odd), file);
        Assert.Equal(0x77, Look(MemoryMarshal.Read<SingleMemoryRegionPayload>(frame.Payload.Span).Region.MmapOffset));
        await AcknowledgeAsync(peer, FrontendRequest.AddMemReg);
        frame = await PassAsync(peer, FrontendRequest.RemMemReg, WirePeer.Bytes(odd));
        Assert.Equal(1, Rig.Device.Windows.Count);
        await AcknowledgeAsync(peer, FrontendRequest.RemMemReg);
        Assert.Equal(0, Rig.Device.Windows.Count);
        await peer.RefusedAsync(FrontendRequest.RemMemReg, WirePeer.Bytes(odd));
    }

    [Fact]
    public async Task The_back_ends_own_requests_have_a_socket_of_their_own()
    {
        using WirePeer peer = await NegotiateAsync();
        (UnixSocket passed, UnixSocket kept) = UnixSocket.CreatePair();
        using WirePeer back = new(kept);
        using (passed)
        using (FileDescriptor end = passed.DuplicateDescriptor())
        {
            await PassAsync(peer, FrontendRequest.SetBackendReqFd, [], end);
        }

        await AcknowledgeAsync(peer, FrontendRequest.SetBackendReqFd);
        Driver.Send(new DriverFrame((uint)BackendRequest.ConfigChangeMsg, MessageFlags.NeedReply, Array.Empty<byte>()));
        WireMessage news = await back.ReceiveAsync();
        Assert.Equal(((uint)BackendRequest.ConfigChangeMsg, WirePeer.NeedReply), (news.Request, news.Flags));
        await back.SendAsync(WirePeer.Frame(news.Request, WirePeer.ReplyFlags, WirePeer.Bytes(0UL)));
        DriverFrame? answer = null;
        await Eventually.TrueAsync(() => (answer = Driver.TryReceive()) is not null, "the answer");
        Assert.Equal((news.Request, true), (answer!.Value.Request, answer.Value.IsReply));

        // What is no reply there ends that socket, and nothing else.
        await back.SendAsync(WirePeer.Frame(1, WirePeer.NoReply, []));
        await back.ExpectClosedAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    [Fact]
    public async Task A_kick_that_is_none_is_refused()
    {
        using WirePeer peer = await NegotiateAsync();
        FileDescriptor memory = Rig.Own(MemFd.Create("outboard-test", Page));
        await peer.RefusedAsync(FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, true), memory);
        await peer.RefusedAsync(FrontendRequest.SetVringCall, RawRing.NotifierPayload(0, true), memory);
        await peer.RefusedAsync(FrontendRequest.SetBackendReqFd, [], memory);
        Rig.Access.Ring(0);
        using EventFd kick = new();
        await PassAsync(peer, FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, true), kick.Descriptor);
        kick.Signal();
        Assert.NotEqual(0UL, Driver.KickOf(0).Wait(5000));
    }

    private byte Look(ulong offset)
    {
        using SharedMemory window = Rig.Access.OpenWindow(VirtioVhostUserSpec.MemoryWindow)!;
        using MemoryMapping view = window.Map(offset, 1);
        return view.Segment.Span[0];
    }

    private (byte[] Table, FileDescriptor[] Files) Table(int count, byte mark)
    {
        List<FileDescriptor> files = [];
        List<byte> table = [.. WirePeer.Bytes(new MemoryTablePayload((uint)count, 0))];
        for (int i = 0; i < count; i++)
        {
            FileDescriptor file = Rig.Own(MemFd.Create("outboard-table", (ulong)(4 + i) * Page));
            MemFd.Write(file, (ulong)i * Page, [(byte)((mark * 16) + i)]);
            files.Add(file);
            table.AddRange(WirePeer.Bytes(
                new MemoryRegionPayload((ulong)i << 20, 3 * Page, 0x7000_0000 + ((ulong)i << 20), (ulong)i * Page)));
        }

        return ([.. table], [.. files]);
    }

    private byte[] PayloadOf(FrontendRequest request, RequestRow row) => request switch
    {
        FrontendRequest.SetMemTable => Table(1, 1).Table,
        FrontendRequest.AddMemReg or FrontendRequest.RemMemReg => WirePeer.Bytes(
            new SingleMemoryRegionPayload(0, new MemoryRegionPayload(0, Page, 0, 0))),
        FrontendRequest.SetLogBase => WirePeer.Bytes(new LogPayload(Page, 0)),
        FrontendRequest.GetInflightFd => WirePeer.Bytes(new InflightPayload(0, 0, 1, 16, 0)),
        FrontendRequest.SetInflightFd => WirePeer.Bytes(new InflightPayload(Page, 0, 1, 16, 0)),
        FrontendRequest.SetProtocolFeatures => WirePeer.Bytes((ulong)ProtocolFeatures.ReplyAck),
        _ => new byte[row.Size.Fixed],
    };

    private FileDescriptor[] DescriptorsOf(FrontendRequest request) => request switch
    {
        FrontendRequest.SetMemTable or FrontendRequest.AddMemReg or FrontendRequest.SetLogBase
            or FrontendRequest.SetInflightFd => [Rig.Own(MemFd.Create("outboard-test", 4 * Page))],
        FrontendRequest.SetLogFd or FrontendRequest.SetVringKick or FrontendRequest.SetVringCall
            or FrontendRequest.SetVringErr => [Rig.Own(new EventFd()).Descriptor],
        FrontendRequest.SetBackendReqFd => [Socket()],
        _ => [],
    };

    private FileDescriptor Socket()
    {
        (UnixSocket passed, UnixSocket kept) = UnixSocket.CreatePair();
        using (passed)
        {
            Rig.Own(kept);
            return Rig.Own(passed.DuplicateDescriptor());
        }
    }

    private async Task AnswerAsync(WirePeer peer, RequestRow row)
    {
        FrontendRequest request = (FrontendRequest)row.Id;
        byte[] reply = row.Reply is ReplyKind.SameLayout ? PayloadOf(request, row) : new byte[sizeof(ulong)];
        Driver.Send(new DriverFrame(row.Id, MessageFlags.Reply, reply));
        WireMessage answer = await peer.ReceiveAsync();
        Assert.Equal((row.Id, WirePeer.ReplyFlags), (answer.Request, answer.Flags));
        Assert.Equal(reply.Length, answer.Payload.Length);
        foreach (FileDescriptor descriptor in answer.Descriptors)
        {
            descriptor.Dispose();
        }
    }
}

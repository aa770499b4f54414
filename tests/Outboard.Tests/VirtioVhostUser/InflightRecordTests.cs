// The record of requests in flight: a driver cannot make memory for it, so the device does, and shows it in a window.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class InflightRecordTests : DeviceTest
{
    [Fact]
    public async Task The_record_of_requests_in_flight_is_made_by_the_device()
    {
        using WirePeer peer = await NegotiateAsync();
        InflightPayload wanted = new(0, 0, 2, 64, 0);
        await peer.SendAsync(FrontendRequest.GetInflightFd, WirePeer.NoReply, WirePeer.Bytes(wanted));
        DriverFrame asked = await Driver.ReceiveAsync(FrontendRequest.GetInflightFd);
        InflightPayload offered = MemoryMarshal.Read<InflightPayload>(asked.Payload.Span);
        Assert.True(offered.MmapSizeBytes >= 2 * 64 * 16);
        using SharedMemory window = Rig.Access.OpenWindow(VirtioVhostUserSpec.InflightWindow)!;
        using MemoryMapping view = window.Map(offered.MmapOffset, offered.MmapSizeBytes);
        view.Segment.Span[5] = 0x42;
        Driver.Reply(FrontendRequest.GetInflightFd, offered with { MmapSizeBytes = offered.MmapSizeBytes / 2 });
        WireMessage reply = await peer.ReplyWithAsync(FrontendRequest.GetInflightFd, 1);
        InflightPayload told = MemoryMarshal.Read<InflightPayload>(reply.Payload);
        Assert.Equal(offered with { MmapSizeBytes = offered.MmapSizeBytes / 2, MmapOffset = 0 }, told);
        using FileSharedMemory memory = new(reply.Descriptors[0]);
        using MemoryMapping own = memory.Map(0, told.MmapSizeBytes);
        Assert.Equal(0x42, own.Segment.Span[5]);

        DriverFrame set = await PassAsync(peer, FrontendRequest.SetInflightFd, WirePeer.Bytes(told), memory.Descriptor);
        ulong place = MemoryMarshal.Read<InflightPayload>(set.Payload.Span).MmapOffset;
        await AcknowledgeAsync(peer, FrontendRequest.SetInflightFd);
        using MemoryMapping later = window.Map(place, told.MmapSizeBytes);
        Assert.Equal(0x42, later.Segment.Span[5]);
        Assert.Equal(1, Rig.Device.Windows.Count);
    }

    /// <summary>A front-end that does not wait: each reply has the record that it asked for.</summary>
    [Fact]
    public async Task Records_that_are_asked_for_at_once_are_told_apart()
    {
        using WirePeer peer = await NegotiateAsync();
        List<InflightPayload> offered = [];
        foreach (ushort size in (ushort[])[1024, 64])
        {
            InflightPayload wanted = new(0, 0, 2, size, 0);
            await peer.SendAsync(FrontendRequest.GetInflightFd, WirePeer.NoReply, WirePeer.Bytes(wanted));
            DriverFrame asked = await Driver.ReceiveAsync(FrontendRequest.GetInflightFd);
            offered.Add(MemoryMarshal.Read<InflightPayload>(asked.Payload.Span));
        }

        foreach (InflightPayload record in offered)
        {
            Driver.Reply(FrontendRequest.GetInflightFd, record);
            WireMessage reply = await peer.ReplyWithAsync(FrontendRequest.GetInflightFd, 1);
            using FileSharedMemory memory = new(reply.Descriptors[0]);
            Assert.Equal(record.MmapSizeBytes, memory.SizeBytes);
        }
    }

    [Theory]
    [InlineData(0, 64)]
    [InlineData(5, 64)]
    [InlineData(2, 0)]
    [InlineData(2, 40000)]
    public async Task An_impossible_record_is_refused(int queues, int size)
    {
        using WirePeer peer = await NegotiateAsync();
        InflightPayload wanted = new(0, 0, (ushort)queues, (ushort)size, 0);
        byte[] reply = await peer.AskAsync(FrontendRequest.GetInflightFd, WirePeer.Bytes(wanted), WirePeer.NoReply);
        Assert.Equal(0UL, MemoryMarshal.Read<InflightPayload>(reply).MmapSizeBytes);
        Assert.Equal(0, Rig.Device.Windows.Count);
    }

    [Fact]
    public async Task A_record_that_the_driver_refuses_is_not_given()
    {
        using WirePeer peer = await NegotiateAsync();
        InflightPayload wanted = new(0, 0, 2, 64, 0);
        await peer.SendAsync(FrontendRequest.GetInflightFd, WirePeer.NoReply, WirePeer.Bytes(wanted));
        await Driver.ReceiveAsync(FrontendRequest.GetInflightFd);
        Driver.Reply(FrontendRequest.GetInflightFd, wanted);
        WireMessage reply = await peer.ReplyWithAsync(FrontendRequest.GetInflightFd, 0);
        Assert.Equal(0UL, MemoryMarshal.Read<InflightPayload>(reply.Payload).MmapSizeBytes);
    }
}

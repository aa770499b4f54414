// Front-ends that exist, played in the order in which their messages were captured.
using System.Buffers.Binary;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class ConversationTests : BackendTest
{
    private const string QemuConnects = """
        GET_FEATURES
        GET_PROTOCOL_FEATURES
        SET_PROTOCOL_FEATURES 0x1b229
        GET_QUEUE_NUM
        GET_MAX_MEM_SLOTS
        SET_BACKEND_REQ_FD *
        SET_OWNER
        GET_FEATURES
        SET_VRING_CALL * 0
        SET_VRING_ERR * 0
        SET_VRING_CALL * 1
        SET_VRING_ERR * 1
        GET_CONFIG 57
        """;

    private const string QemuStartsFirmware = """
        SET_FEATURES 0x140000001
        GET_STATUS
        SET_STATUS 0x8
        GET_INFLIGHT_FD
        SET_INFLIGHT_FD
        SET_VRING_CALL * 0
        SET_VRING_CALL * 1
        SET_FEATURES 0x140000001
        GET_STATUS
        ADD_MEM_REG *
        SET_VRING_NUM 0
        SET_VRING_BASE 0 0
        SET_VRING_ADDR 0
        SET_VRING_KICK * 0
        SET_VRING_ENABLE * 0 1
        SET_VRING_ENABLE * 1 1
        GET_STATUS
        SET_STATUS 0xF
        """;

    private const string QemuStops = """
        SET_VRING_ENABLE * 0 0
        SET_VRING_ENABLE * 1 0
        GET_VRING_BASE 0
        SET_STATUS 0x0
        """;

    private const string QemuStartsGuest = """
        SET_FEATURES 0x170000021
        SET_VRING_CALL * 0
        SET_VRING_CALL * 1
        SET_FEATURES 0x170000021
        SET_VRING_NUM 0
        SET_VRING_BASE 0 0
        SET_VRING_ADDR 0
        SET_VRING_KICK * 0
        SET_VRING_NUM 1
        SET_VRING_BASE 1 0
        SET_VRING_ADDR 1
        SET_VRING_KICK * 1
        SET_VRING_ENABLE * 0 1
        SET_VRING_ENABLE * 1 1
        GET_STATUS
        SET_STATUS 0xF
        """;

    [Fact]
    public async Task Qemu_block_device_from_firmware_to_guest()
    {
        DriverMemory memory = Rig.Memory();
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing firmware = new(Rig, memory, 0);
        RawRing unused = new(Rig, memory, 1);
        Transcript transcript = new(Rig, peer, firmware, unused);
        await transcript.PlayAsync(QemuConnects);
        await transcript.PlayAsync("RESET_DEVICE");
        await transcript.PlayAsync(QemuStartsFirmware);
        await firmware.RoundTripAsync(1);
        await firmware.RoundTripAsync(2);
        await transcript.PlayAsync(QemuStops);
        Assert.Equal(2U, Index(transcript));

        const ulong eventIndex = WirePeer.Features | (1UL << 29);
        RawRing first = new(Rig, memory, 0, eventIndex);
        RawRing second = new(Rig, memory, 1, eventIndex);
        transcript.Use(first, second);
        await transcript.PlayAsync("RESET_DEVICE\nRESET_DEVICE");
        await transcript.PlayAsync(QemuStartsGuest);
        for (byte i = 0; i < 50; i++)
        {
            await first.RoundTripAsync(i);
            await second.RoundTripAsync(i);
        }

        await transcript.PlayAsync(QemuStops.Replace(
            "GET_VRING_BASE 0", "GET_VRING_BASE 1\nGET_VRING_BASE 0", StringComparison.Ordinal));
        Assert.Equal(50U, Index(transcript));
        Rig.Device.ChangeCapacity(1);
        WireMessage told = await transcript.BackendChannel!.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.ConfigChangeMsg, told.Request);
    }

    [Fact]
    public async Task Qemu_that_is_stopped_and_continued_keeps_memory_and_index()
    {
        DriverMemory memory = Rig.Memory();
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing ring = new(Rig, memory, 0);
        Transcript transcript = new(Rig, peer, ring, new RawRing(Rig, memory, 1));
        await transcript.PlayAsync(QemuConnects);
        await transcript.PlayAsync(QemuStartsFirmware);
        for (byte i = 0; i < 5; i++)
        {
            await ring.RoundTripAsync(i);
            await transcript.PlayAsync(QemuStops);
            Assert.Equal(i + 1U, Index(transcript));
            string again = QemuStartsFirmware.Replace("ADD_MEM_REG *\n", "", StringComparison.Ordinal)
                .Replace("GET_INFLIGHT_FD\n", "", StringComparison.Ordinal)
                .Replace("SET_VRING_BASE 0 0", $"SET_VRING_BASE 0 {i + 1}", StringComparison.Ordinal);
            await transcript.PlayAsync(again);
        }
    }

    [Fact]
    public async Task Qemu_network_device_enables_rings_before_features()
    {
        DriverMemory memory = Rig.Memory();
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing ring = new(Rig, memory, 0);
        Transcript transcript = new(Rig, peer, ring, new RawRing(Rig, memory, 1));
        await transcript.PlayAsync(QemuConnects);
        await transcript.PlayAsync("RESET_DEVICE\nSET_VRING_ENABLE * 0 1\nSET_VRING_ENABLE * 1 1");
        await transcript.PlayAsync(QemuStartsFirmware);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Libblkio_sends_call_after_kick_and_adds_memory_while_running()
    {
        DriverMemory memory = Rig.Memory(guestAddress: 0x7f00_0000_0000);
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing ring = new(Rig, memory, 0);
        Transcript transcript = new(Rig, peer, ring);
        await transcript.PlayAsync("""
            SET_OWNER
            GET_FEATURES
            SET_FEATURES 0x140000001
            GET_PROTOCOL_FEATURES
            SET_PROTOCOL_FEATURES 0x8209
            GET_QUEUE_NUM *
            GET_MAX_MEM_SLOTS *
            GET_CONFIG * 60
            ADD_MEM_REG *
            SET_VRING_NUM * 0
            SET_VRING_BASE * 0 0
            SET_VRING_ADDR * 0
            SET_VRING_KICK * 0
            SET_VRING_CALL * 0
            SET_VRING_ENABLE * 0 1
            """);
        await ring.RoundTripAsync(1);
        await RawRing.AddMemoryAsync(peer, Rig.Memory(guestAddress: 0x7f10_0000_0000));
        await ring.RoundTripAsync(2);

        // It never stops a ring: it just closes.
        peer.Dispose();
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Dpdk_sends_call_first_of_all()
    {
        DriverMemory memory = Rig.Memory(guestAddress: 0x7f00_0000_0000);
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing first = new(Rig, memory, 0);
        RawRing second = new(Rig, memory, 1);
        Transcript transcript = new(Rig, peer, first, second);
        await transcript.PlayAsync("""
            SET_OWNER
            GET_FEATURES
            GET_PROTOCOL_FEATURES
            SET_PROTOCOL_FEATURES 0x10009
            SET_VRING_CALL 0
            SET_VRING_CALL 1
            SET_FEATURES 0x140000000
            SET_STATUS * 0xB
            GET_STATUS
            SET_MEM_TABLE *
            SET_VRING_NUM 0
            SET_VRING_BASE 0 0
            SET_VRING_ADDR 0
            SET_VRING_KICK 0
            SET_VRING_NUM 1
            SET_VRING_BASE 1 0
            SET_VRING_ADDR 1
            SET_VRING_KICK 1
            SET_VRING_ENABLE 0 1
            SET_VRING_ENABLE 1 1
            SET_STATUS * 0xF
            """);
        await first.RoundTripAsync(1);
        await second.RoundTripAsync(2);
        await transcript.PlayAsync("""
            SET_VRING_ENABLE 0 0
            SET_VRING_ENABLE 1 0
            GET_VRING_BASE 0
            GET_VRING_BASE 1
            """);
        Assert.Equal(1U, Index(transcript));
    }

    [Fact]
    public async Task User_mode_linux_asks_for_acknowledgements_from_the_first_message_on()
    {
        DriverMemory memory = Rig.Memory(guestAddress: 0);
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing ring = new(Rig, memory, 0);
        Transcript transcript = new(Rig, peer, ring);
        await transcript.PlayAsync("""
            SET_OWNER
            GET_FEATURES
            GET_PROTOCOL_FEATURES
            SET_PROTOCOL_FEATURES * 0x228
            SET_BACKEND_REQ_FD *
            SET_FEATURES * 0x140000000
            GET_CONFIG 36
            SET_MEM_TABLE *
            SET_VRING_NUM 0
            SET_VRING_BASE 0 0
            SET_VRING_ADDR 0
            SET_VRING_CALL 0
            SET_VRING_KICK 0
            SET_VRING_ENABLE 0 1
            """);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Cloud_hypervisor_sends_a_new_back_end_channel_at_each_activation()
    {
        DriverMemory memory = Rig.Memory();
        using WirePeer peer = await Rig.ConnectAsync();
        RawRing ring = new(Rig, memory, 0);
        Transcript transcript = new(Rig, peer, ring, new RawRing(Rig, memory, 1));
        await transcript.PlayAsync(QemuConnects);
        await transcript.PlayAsync("SET_FEATURES 0x140000000\nSET_MEM_TABLE *");
        for (byte i = 0; i < 3; i++)
        {
            await transcript.PlayAsync($"""
                SET_VRING_NUM * 0
                SET_VRING_ADDR * 0
                SET_VRING_BASE * 0 {i}
                SET_VRING_CALL * 0
                SET_VRING_KICK * 0
                SET_BACKEND_REQ_FD *
                SET_VRING_ENABLE * 0 1
                """);
            await ring.RoundTripAsync(i);
            await transcript.PlayAsync("SET_VRING_ENABLE * 0 0\nGET_VRING_BASE 0\nRESET_OWNER");
        }

        Assert.Equal(3U, Index(transcript));
    }

    [Fact]
    public async Task Restored_front_end_sets_protocol_features_without_having_asked()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        Transcript transcript = new(Rig, peer);
        await transcript.PlayAsync("""
            SET_OWNER
            SET_PROTOCOL_FEATURES 0x8209
            SET_FEATURES * 0x140000000
            GET_CONFIG * 60
            """);
    }

    private static uint Index(Transcript transcript) =>
        BinaryPrimitives.ReadUInt32LittleEndian(transcript.Replies[FrontendRequest.GetVringBase].AsSpan(4));
}

// VirtiofsdTests.cs - our front-end and virtiofsd: what it offers, and a file read through its queue.
using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.InteropTests.Frontend;

public sealed class VirtiofsdTests
{
    private const string Content = "read without a machine\n";
    private const int RequestQueue = 1;
    private const int InHeaderBytes = 40;
    private const int OutHeaderBytes = 16;
    private const uint Lookup = 1;
    private const uint Open = 14;
    private const uint Read = 15;
    private const uint Init = 26;
    private const ulong RootNode = 1;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task It_is_inspected()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        JsonElement offer = await Inspection.RunAsync(folder.Combine("fs.sock"), "fs");
        Assert.Equal(
            "LOG_ALL INDIRECT_DESC EVENT_IDX PROTOCOL_FEATURES VERSION_1",
            Inspection.Words(offer, "features", "ring"));
        Assert.Equal(
            "MQ LOG_SHMFD REPLY_ACK BACKEND_REQ BACKEND_SEND_FD RESET_DEVICE CONFIGURE_MEM_SLOTS DEVICE_STATE",
            Inspection.Words(offer, "protocol_features", "names"));
        Assert.Equal(2, offer.GetProperty("queues").GetInt32());
        Assert.Equal(509, offer.GetProperty("memory_slots").GetInt32());
        Assert.Empty(offer.GetProperty("problems").EnumerateArray());
    }

    [Fact]
    public async Task A_file_is_read_through_its_queue()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(folder.Combine("fs.sock"));
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory);
        using FrontendQueue queue = await frontend.StartQueueAsync(RequestQueue, 64, memory);

        byte[] init = Ask(queue, memory, Init, 0, Words(7, 31, 0x20000, 0), 64);
        Assert.Equal(7U, BinaryPrimitives.ReadUInt32LittleEndian(init));
        byte[] entry = Ask(queue, memory, Lookup, RootNode, Encoding.ASCII.GetBytes("hello.txt\0"), 128);
        ulong node = BinaryPrimitives.ReadUInt64LittleEndian(entry);
        Assert.Equal((ulong)Content.Length, BinaryPrimitives.ReadUInt64LittleEndian(entry.AsSpan(48)));
        byte[] handle = Ask(queue, memory, Open, node, Words(0, 0), 16)[..8];
        byte[] data = Ask(queue, memory, Read, node, [.. handle, .. Words(0, 0, 4096, 0, 0, 0, 0, 0)], 4096);
        Assert.Equal(Content, Encoding.ASCII.GetString(data));
        await frontend.StopQueueAsync(queue);
    }

    /// <summary>One FUSE request; gives what follows the header of its answer.</summary>
    private static byte[] Ask(
        FrontendQueue queue, DriverMemory memory, uint operation, ulong node, byte[] arguments, uint answerBytes)
    {
        DriverBuffer request = memory.Allocate((uint)(InHeaderBytes + arguments.Length));
        DriverBuffer answer = memory.Allocate(OutHeaderBytes + answerBytes);
        request.Span.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(request.Span, request.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Span[4..], operation);
        BinaryPrimitives.WriteUInt64LittleEndian(request.Span[8..], operation);
        BinaryPrimitives.WriteUInt64LittleEndian(request.Span[16..], node);
        arguments.CopyTo(request.Span[InHeaderBytes..]);
        Assert.True(queue.Ring.TryAdd([request], [answer], operation));
        queue.Submit();
        uint written;
        while (!queue.Ring.TryCollect(out _, out written))
        {
            Assert.True(queue.WaitForUsed((int)s_startLimit.TotalMilliseconds), "no answer");
        }

        Assert.True(written >= OutHeaderBytes, $"{written} bytes of answer");
        Assert.Equal(0, BinaryPrimitives.ReadInt32LittleEndian(answer.Span[4..]));
        Assert.Equal((ulong)operation, BinaryPrimitives.ReadUInt64LittleEndian(answer.Span[8..]));
        return answer.Span[OutHeaderBytes..(int)written].ToArray();
    }

    private static byte[] Words(params uint[] words) => [.. words.SelectMany(BitConverter.GetBytes)];

    private static async Task<PeerProcess> StartAsync(TempFolder folder)
    {
        string shared = Directory.CreateDirectory(folder.Combine("shared")).FullName;
        await File.WriteAllTextAsync(Path.Combine(shared, "hello.txt"), Content);
        await Peers.RequireAsync("virtiofsd");
        string socket = folder.Combine("fs.sock");
        PeerProcess daemon = await PeerProcess.StartPeerAsync(
            "virtiofsd", $"--socket-path={socket}", $"--shared-dir={shared}", "--sandbox=none");
        await daemon.WaitForSocketAsync(socket, s_startLimit);
        return daemon;
    }
}

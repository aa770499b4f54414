// GpuTests.cs - our front-end and QEMU's vhost-user-gpu: a display is handed over, the back-end asks it what it is, and
// a picture that a driver draws arrives there, pixel by pixel.
using System.Buffers.Binary;
using System.Text.Json;
using System.Threading.Channels;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.InteropTests.Frontend;

public sealed class GpuTests
{
    private const string Program = "/usr/lib/qemu/vhost-user-gpu";
    private const int Width = 64;
    private const int Height = 32;
    private const int PictureBytes = Width * Height * 4;
    private const uint Resource = 7;
    private const uint NoData = 0x1100;
    private const uint DisplayInfo = 0x1101;
    private const int DisplayInfoBytes = 408;
    private const int HeaderBytes = 24;

    private const uint AskFeatures = 1;
    private const uint AskDisplayInfo = 3;
    private const uint Scanout = 7;
    private const uint Update = 8;

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task It_is_inspected()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        JsonElement offer = await Inspection.RunAsync(folder.Combine("gpu.sock"), "gpu");
        Assert.Contains("VERSION_1", Inspection.Words(offer, "features", "ring"), StringComparison.Ordinal);
        Assert.Contains("CONFIG", Inspection.Words(offer, "protocol_features", "names"), StringComparison.Ordinal);
        Assert.Equal(2, offer.GetProperty("queues").GetInt32());
        Assert.True(offer.GetProperty("config").TryGetProperty("num_scanouts", out _));
        Assert.Empty(offer.GetProperty("problems").EnumerateArray());
    }

    [Fact]
    public async Task A_picture_arrives_at_the_display()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        VhostUserFrontendOptions options = new() { Features = VirtioFeatures.Version1 };
        await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(
            folder.Combine("gpu.sock"), options);
        await using DisplayConnection display = await frontend.GpuSetSocketAsync();
        Channel<DisplayMessage> shown = Channel.CreateUnbounded<DisplayMessage>();
        Task showing = ShowAsync(display, shown.Writer);
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory);
        using FrontendQueue control = await frontend.StartQueueAsync(0, 16, memory);

        byte[] info = Ask(control, memory, 0x100, DisplayInfo, DisplayInfoBytes);
        Assert.Equal(640U, BinaryPrimitives.ReadUInt32LittleEndian(info.AsSpan(HeaderBytes + 8)));
        DriverBuffer picture = memory.Allocate(PictureBytes, 4096);
        new Random(1).NextBytes(picture.Span);
        Ask(control, memory, 0x101, NoData, HeaderBytes, Resource, 2, Width, Height);
        Ask(
            control, memory, 0x106, NoData, HeaderBytes,
            Resource, 1, (uint)picture.GuestAddress, (uint)(picture.GuestAddress >> 32), PictureBytes, 0);
        Ask(control, memory, 0x103, NoData, HeaderBytes, 0, 0, Width, Height, 0, Resource);
        Ask(control, memory, 0x105, NoData, HeaderBytes, 0, 0, Width, Height, 0, 0, Resource, 0);
        Ask(control, memory, 0x104, NoData, HeaderBytes, 0, 0, Width, Height, Resource, 0);

        DisplayMessage scanout = await ExpectAsync(shown.Reader, Scanout);
        Assert.Equal(Words(0, Width, Height), scanout.Payload.ToArray());
        DisplayMessage update = await ExpectAsync(shown.Reader, Update);
        Assert.Equal(Words(0, 0, 0, Width, Height), update.Payload[..20].ToArray());
        AssertSamePixels(picture.Span, update.Payload.Span[20..]);
        await frontend.StopQueueAsync(control);
        await daemon.TerminateAsync();
        await showing;
    }

    /// <summary>A display of 640 x 480 that answers what it is asked, and hands on what it is shown.</summary>
    private static async Task ShowAsync(DisplayConnection display, ChannelWriter<DisplayMessage> shown)
    {
        while (await display.ReceiveAsync() is { } message)
        {
            byte[]? answer = message.Request switch
            {
                AskFeatures => new byte[8],
                AskDisplayInfo => Display(),
                _ => null,
            };
            if (answer is not null)
            {
                await display.SendAsync(new DisplayMessage(message.Request, true, answer));
            }
            else
            {
                await shown.WriteAsync(message);
            }
        }

        shown.Complete();
    }

    private static byte[] Display()
    {
        byte[] info = new byte[DisplayInfoBytes];
        Words(DisplayInfo).CopyTo(info, 0);
        Words(0, 0, 640, 480, 1).CopyTo(info, HeaderBytes);
        return info;
    }

    private static async Task<DisplayMessage> ExpectAsync(ChannelReader<DisplayMessage> shown, uint request)
    {
        while (true)
        {
            DisplayMessage message = await shown.ReadAsync().AsTask().WaitAsync(s_limit);
            if (message.Request == request)
            {
                return message;
            }
        }
    }

    /// <summary>The fourth byte of a pixel means nothing.</summary>
    private static void AssertSamePixels(ReadOnlySpan<byte> drawn, ReadOnlySpan<byte> shown)
    {
        Assert.Equal(drawn.Length, shown.Length);
        for (int i = 0; i < drawn.Length; i++)
        {
            Assert.True(i % 4 == 3 || drawn[i] == shown[i], $"byte {i}: {drawn[i]} was drawn, {shown[i]} is shown");
        }
    }

    private static byte[] Ask(
        FrontendQueue control, DriverMemory memory, uint command, uint expected, int answerBytes, params uint[] words)
    {
        byte[] bytes = Words([command, 0, 0, 0, 0, 0, .. words]);
        DriverBuffer request = memory.Allocate((uint)bytes.Length);
        DriverBuffer answer = memory.Allocate((uint)answerBytes);
        bytes.CopyTo(request.Span);
        Assert.True(control.Ring.TryAdd([request], [answer], command));
        control.Submit();
        while (!control.Ring.TryCollect(out _, out _))
        {
            Assert.True(control.WaitForUsed((int)s_limit.TotalMilliseconds), $"command 0x{command:x}: no answer");
        }

        Assert.Equal(expected, BinaryPrimitives.ReadUInt32LittleEndian(answer.Span));
        return answer.Span.ToArray();
    }

    private static byte[] Words(params uint[] words) => [.. words.SelectMany(BitConverter.GetBytes)];

    private static async Task<PeerProcess> StartAsync(TempFolder folder)
    {
        await Peers.RequireAsync("gpu");
        string socket = folder.Combine("gpu.sock");
        PeerProcess daemon = await PeerProcess.StartPeerAsync(Program, "-s", socket);
        await daemon.WaitForSocketAsync(socket, s_limit);
        return daemon;
    }
}

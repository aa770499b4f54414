// Both directions of a connection: who listens is neither half's business.
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Channel;

public sealed class ChannelSourceTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string SocketPath => Path.Combine(_folder.FullName, "s");

    public void Dispose() => _folder.Delete(recursive: true);

    [Fact]
    public async Task Back_end_that_connects_serves_one_listening_front_end_after_another()
    {
        using CancellationTokenSource end = new();
        FakeDevice device = new();
        using ChannelSource backendSide = ChannelSource.Connect(SocketPath, Quick());
        Task serving = VhostUserBackend.ServeAsync(device, backendSide, cancellation: end.Token);
        for (int i = 1; i <= 3; i++)
        {
            // Nobody listened until now, and nobody will for a while afterwards.
            using ChannelSource frontendSide = ChannelSource.Listen(SocketPath);
            await using ReconnectingFrontend frontend =
                await ReconnectingFrontend.ConnectAsync(frontendSide, cancellation: Token);
            Assert.Equal(device.QueueCount, frontend.Current.QueueCount);
        }

        await end.CancelAsync();
        await serving.WaitAsync(Eventually.Limit, Token);
    }

    [Fact]
    public async Task Path_that_is_no_socket_ends_the_back_end_with_its_name()
    {
        await File.WriteAllTextAsync(SocketPath, "text", Token);
        using ChannelSource source = ChannelSource.Connect(Path.Combine(SocketPath, "below"), Quick());
        LinuxException failure = await Assert.ThrowsAsync<LinuxException>(
            () => source.NextAsync(Timeout.InfiniteTimeSpan, Token));
        Assert.Contains(SocketPath, failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_attempt_is_made_without_patience()
    {
        using ChannelSource source = ChannelSource.Connect(SocketPath, Quick());
        await Assert.ThrowsAsync<LinuxException>(() => source.NextAsync(TimeSpan.Zero, Token));
        using UnixListener listener = UnixListener.Bind(SocketPath);
        await using VhostUserChannel channel = await source.NextAsync(TimeSpan.Zero, Token);
    }

    [Fact]
    public async Task Listener_to_whom_nobody_comes_says_so()
    {
        using ChannelSource source = ChannelSource.Listen(SocketPath);
        IOException failure = await Assert.ThrowsAsync<IOException>(
            () => source.NextAsync(TimeSpan.FromMilliseconds(1), Token));
        Assert.Contains("nobody connected", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Delays_grow_to_the_longest_and_begin_anew()
    {
        BackOff delays = new(TimeSpan.FromMilliseconds(10), TimeSpan.FromMilliseconds(50));
        Assert.Equal([10, 20, 40, 50, 50], Enumerable.Range(0, 5).Select(_ => delays.Next().TotalMilliseconds));
        delays.Reset();
        Assert.Equal(10, delays.Next().TotalMilliseconds);
        Assert.Throws<ArgumentOutOfRangeException>(() => new BackOff(TimeSpan.Zero, TimeSpan.FromSeconds(1)));
        Assert.Throws<ArgumentOutOfRangeException>(
            () => new BackOff(TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(1)));
    }

    [Fact]
    public async Task Close_is_noticed_without_taking_what_arrives()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair();
        await using SocketChannel channel = new(first);
        Task closed = channel.WaitForCloseAsync(Token);
        await using (SocketChannel peer = new(second))
        {
            await peer.SendAsync(new VhostUserMessage(1, MessageFlags.Version1, Array.Empty<byte>()), Token);
            using (VhostUserMessage? message = await channel.ReceiveAsync(Token))
            {
                Assert.Equal(1u, message!.Request);
            }

            Assert.False(closed.IsCompleted);
        }

        await closed.WaitAsync(Eventually.Limit, Token);
    }

    private static BackOff Quick() => new(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(5));
}

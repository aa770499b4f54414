// Streams with descriptors: order, splits, limits, and what becomes of descriptors that nobody takes.
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Xunit;

namespace Outboard.Tests.Linux;

[Collection(DescriptorCounting.Name)]
public sealed class UnixSocketTests
{
    private const int MostDescriptors = 253;

    private static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(20)).Token;

    [Fact]
    public async Task A_stream_may_be_split_anywhere()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        byte[] sent = new byte[10_007];
        new Random(5).NextBytes(sent);
        Task sending = Task.Run(
            async () =>
            {
                for (int at = 0; at < sent.Length;)
                {
                    int length = Math.Min(1 + (at % 97), sent.Length - at);
                    await sender.SendAsync(sent.AsMemory(at, length), default, Soon);
                    at += length;
                }

                sender.Shutdown();
            },
            Soon);
        byte[] received = new byte[sent.Length];
        List<FileDescriptor> descriptors = [];
        int count = 0;
        while (count < sent.Length)
        {
            int length = Math.Min(1 + (count % 13), sent.Length - count);
            count += await receiver.ReceiveAsync(received.AsMemory(count, length), descriptors, Soon);
        }

        Assert.Equal(0, await receiver.ReceiveAsync(new byte[1], descriptors, Soon));
        await sending;
        Assert.Equal(sent, received);
        Assert.Empty(descriptors);
    }

    /// <summary>What ClientRequests relies on: a reply of 32 KiB with its head goes as a whole, or not at all.
    /// </summary>
    [Fact]
    public void Thirty_two_kibibytes_are_taken_as_a_whole_or_not_at_all()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket receiver = right;
        using FileDescriptor number = left.DuplicateDescriptor();
        left.Dispose();
        using Socket sender = new(new SafeSocketHandle(number.Release(), ownsHandle: true)) { Blocking = false };
        byte[] message = new byte[(32 << 10) + 64];
        Random random = new(3);
        int refusals = 0;
        for (int round = 0; round < 300; round++)
        {
            int sent = sender.Send(message, SocketFlags.None, out SocketError error);
            Assert.Equal(error == SocketError.Success ? message.Length : 0, Math.Max(sent, 0));
            if (error != SocketError.Success)
            {
                // some room, whatever is in front of it
                refusals++;
                _ = receiver.TryReceive(new byte[random.Next(1, 90_000)], []);
            }
        }

        Assert.NotEqual(0, refusals);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Descriptors_come_with_the_first_byte(bool receiverWaits)
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        using EventFd first = new();
        using EventFd second = new();
        List<FileDescriptor> descriptors = [];
        byte[] one = new byte[1];
        Task<int>? waiting = receiverWaits ? receiver.ReceiveAsync(one, descriptors, Soon).AsTask() : null;
        await Task.Delay(receiverWaits ? 50 : 0, Soon);
        FileDescriptor[] passed = [first.Descriptor, second.Descriptor];
        await sender.SendAsync(new byte[] { 1, 2, 3 }, passed, Soon);
        Assert.Equal(1, waiting is not null ? await waiting : await receiver.ReceiveAsync(one, descriptors, Soon));
        Assert.Equal(2, descriptors.Count);
        Assert.Equal(1, one[0]);
        byte[] rest = new byte[10];
        Assert.Equal(2, await receiver.ReceiveAsync(rest, descriptors, Soon));
        Assert.Equal(2, descriptors.Count);

        // They are the same eventfds, and they are ours to close.
        Assert.All(descriptors, descriptor => Assert.True(OpenDescriptors.IsCloseOnExec(descriptor)));
        using EventFd copy = new(descriptors[1]);
        Assert.True(copy.Signal());
        Assert.Equal(1UL, second.Take());
        Assert.Equal(0UL, first.Take());
        descriptors[0].Dispose();
    }

    [Fact]
    public async Task Descriptors_of_two_messages_are_not_mixed()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        using FileDescriptor small = MemFd.Create("small", 4096);
        using FileDescriptor large = MemFd.Create("large", 8192);
        await sender.SendAsync(new byte[] { 1 }, new[] { small }, Soon);
        await sender.SendAsync(new byte[] { 2 }, new[] { large }, Soon);
        byte[] buffer = new byte[16];
        List<FileDescriptor> descriptors = [];
        Assert.Equal(1, await receiver.ReceiveAsync(buffer, descriptors, Soon));
        Assert.Equal(4096UL, Assert.Single(descriptors).FileSizeBytes);
        Assert.Equal(1, await receiver.ReceiveAsync(buffer, descriptors, Soon));
        Assert.Equal(8192UL, descriptors[1].FileSizeBytes);
        descriptors.ForEach(descriptor => descriptor.Dispose());
    }

    [Fact]
    public async Task The_kernels_limit_of_descriptors_passes_and_more_is_the_callers_bug()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        using EventFd event1 = new();
        FileDescriptor[] many = [.. Enumerable.Repeat(event1.Descriptor, MostDescriptors)];
        await sender.SendAsync(new byte[] { 1 }, many, Soon);
        List<FileDescriptor> descriptors = [];
        Assert.Equal(1, await receiver.ReceiveAsync(new byte[8], descriptors, Soon));
        Assert.Equal(MostDescriptors, descriptors.Count);
        descriptors.ForEach(descriptor => descriptor.Dispose());
        FileDescriptor[] tooMany = [.. many, event1.Descriptor];
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(
            async () => await sender.SendAsync(new byte[] { 1 }, tooMany, Soon));
    }

    [Fact]
    public async Task No_descriptor_is_leaked()
    {
        await PassSome();
        int before = OpenDescriptors.Count();
        for (int i = 0; i < 5; i++)
        {
            await PassSome();
        }

        OpenDescriptors.AssertCount(before);

        // Some are received and disposed, some stay in the socket when it is closed.
        static async Task PassSome()
        {
            (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
            using UnixSocket sender = left;
            using UnixSocket receiver = right;
            using EventFd event1 = new();
            FileDescriptor[] passed = [.. Enumerable.Repeat(event1.Descriptor, 20)];
            await sender.SendAsync(new byte[] { 1 }, passed, Soon);
            await sender.SendAsync(new byte[] { 2 }, passed, Soon);
            List<FileDescriptor> descriptors = [];
            _ = await receiver.ReceiveAsync(new byte[8], descriptors, Soon);
            Assert.Equal(20, descriptors.Count);
            descriptors.ForEach(descriptor => descriptor.Dispose());
        }
    }

    [Fact]
    public async Task The_end_of_the_stream_is_told_and_sending_then_fails()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        List<FileDescriptor> descriptors = [];
        Task<int> waiting = sender.ReceiveAsync(new byte[1], descriptors, Soon).AsTask();
        right.Dispose();
        Assert.Equal(0, await waiting);
        LinuxException error = await Assert.ThrowsAsync<LinuxException>(
            async () => await sender.SendAsync(new byte[] { 1 }, default, Soon));
        Assert.Equal(Errno.BrokenPipe, error.Errno);
        Assert.Equal("sendmsg", error.Call);
    }

    [Fact]
    public async Task A_full_socket_is_waited_for_and_keeps_the_descriptors()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        using EventFd event1 = new();
        byte[] filling = new byte[4 << 20];
        ValueTask blocked = sender.SendAsync(filling, default, Soon);
        Task last = Task.Run(
            async () =>
            {
                await blocked;
                await sender.SendAsync(new byte[] { 0xFF, 0xFE }, new[] { event1.Descriptor }, Soon);
            },
            Soon);
        await Task.Delay(20, Soon);
        Assert.False(last.IsCompleted);

        byte[] buffer = new byte[64 << 10];
        List<FileDescriptor> descriptors = [];
        long count = 0;
        while (count < filling.Length + 2)
        {
            int received = await receiver.ReceiveAsync(buffer, descriptors, Soon);
            count += received;
            Assert.True(descriptors.Count == 0 || count > filling.Length);
        }

        await last;
        Assert.Single(descriptors).Dispose();
    }

    [Fact]
    public async Task Descriptors_wait_for_room_in_a_full_socket()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket sender = left;
        using UnixSocket receiver = right;
        using EventFd event1 = new();
        using CancellationTokenSource impatience = new(TimeSpan.FromMilliseconds(200));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            async () => await sender.SendAsync(new byte[8 << 20], default, impatience.Token));
        Task sending = sender.SendAsync(new byte[] { 1 }, new[] { event1.Descriptor }, Soon).AsTask();
        await Task.Delay(20, Soon);
        Assert.False(sending.IsCompleted);
        List<FileDescriptor> descriptors = [];
        byte[] buffer = new byte[256 << 10];
        while (descriptors.Count == 0)
        {
            Assert.NotEqual(0, await receiver.ReceiveAsync(buffer, descriptors, Soon));
        }

        await sending;
        Assert.Single(descriptors).Dispose();
    }

    [Fact]
    public async Task A_waiting_receive_can_be_cancelled()
    {
        (UnixSocket left, UnixSocket right) = UnixSocket.CreatePair();
        using UnixSocket silent = left;
        using UnixSocket receiver = right;
        using CancellationTokenSource stop = new(TimeSpan.FromMilliseconds(50));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            async () => await receiver.ReceiveAsync(new byte[1], [], stop.Token));
        await silent.SendAsync(new byte[] { 7 }, default, Soon);
        Assert.Equal(1, await receiver.ReceiveAsync(new byte[1], [], Soon));
    }

    [Fact]
    public void What_is_no_unix_stream_is_refused()
    {
        using EventFd event1 = new();
        Assert.False(UnixSocket.IsUnixStream(event1.Descriptor));
        LinuxException error = Assert.Throws<LinuxException>(() => new UnixSocket(event1.Descriptor));
        Assert.Contains("not a UNIX stream socket", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_listener_accepts_and_cleans_up()
    {
        string path = SocketPath();
        using (UnixListener listener = UnixListener.Bind(path))
        {
            Task<UnixSocket> accepting = listener.AcceptAsync(Soon);
            using UnixSocket client = await UnixSocket.ConnectAsync(path, Soon);
            using UnixSocket server = await accepting;
            await client.SendAsync(new byte[] { 9 }, default, Soon);
            byte[] buffer = new byte[4];
            Assert.Equal(1, await server.ReceiveAsync(buffer, [], Soon));
            Assert.Equal(9, buffer[0]);
            LinuxException busy = Assert.Throws<LinuxException>(() => UnixListener.Bind(path));
            Assert.Equal(Errno.AddressInUse, busy.Errno);
            Assert.True(File.Exists(path));
        }

        Assert.False(File.Exists(path));
    }

    [Fact]
    public void A_dead_socket_is_replaced_and_a_file_is_not()
    {
        // The runtime removes the path that it bound; a second link to the socket stays, with nobody behind it.
        string path = SocketPath();
        string bound = SocketPath();
        using (System.Net.Sockets.Socket dead = new(
            System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, 0))
        {
            dead.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(bound));
            using System.Diagnostics.Process link = System.Diagnostics.Process.Start("ln", [bound, path]);
            link.WaitForExit();
        }

        Assert.True(File.Exists(path));
        UnixListener.Bind(path).Dispose();
        using TemporaryFile file = TemporaryFile.OnDisk(1);
        LinuxException error = Assert.Throws<LinuxException>(() => UnixListener.Bind(file.Path));
        Assert.Contains("no socket", error.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(file.Path));
    }

    [Fact]
    public void A_path_that_is_too_long_is_refused()
    {
        LinuxException error = Assert.Throws<LinuxException>(() => UnixListener.Bind("/tmp/" + new string('x', 200)));
        Assert.Equal(Errno.NameTooLong, error.Errno);
    }

    [Fact]
    public async Task An_inherited_listener_is_recognised()
    {
        string path = SocketPath();
        using System.Net.Sockets.Socket socket = new(
            System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, 0);
        socket.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(path));
        socket.Listen();
        using FileDescriptor original = new((int)socket.Handle);
        FileDescriptor inherited = original.Duplicate();
        _ = original.Release();
        Assert.True(UnixListener.IsListening(inherited));
        using UnixListener listener = UnixListener.FromInherited(inherited);
        Task<UnixSocket> accepting = listener.AcceptAsync(Soon);
        using UnixSocket client = await UnixSocket.ConnectAsync(path, Soon);
        using FileDescriptor copy = client.DuplicateDescriptor();
        Assert.False(UnixListener.IsListening(copy));
        (await accepting).Dispose();
        File.Delete(path);
    }

    private static string SocketPath() => Path.Combine(Path.GetTempPath(), $"outboard-{Guid.NewGuid():N}.sock");
}

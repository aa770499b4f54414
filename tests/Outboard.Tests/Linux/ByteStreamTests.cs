// Streams of bytes that a peer passed: whole, cut off, cancelled while nobody is at the other end.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class ByteStreamTests
{
    private const int Limit = 1 << 20;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4097)]
    [InlineData(300_000)]
    public async Task All_bytes_arrive(int length)
    {
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        await ExpectArrivalAsync(reading, writing, length);
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair();
        using (first)
        using (second)
        {
            FileDescriptor one = first.DuplicateDescriptor();
            FileDescriptor other = second.DuplicateDescriptor();
            first.Dispose();
            second.Dispose();
            await ExpectArrivalAsync(one, other, length);
        }
    }

    [Fact]
    public async Task A_file_is_read_to_its_end()
    {
        using ByteStream stream = new(MemFd.Create("outboard-stream", 5000));
        Assert.Equal(5000, (await stream.ReadToEndAsync(Limit, Token)).Length);
    }

    [Fact]
    public async Task More_than_the_limit_is_refused()
    {
        using ByteStream stream = new(MemFd.Create("outboard-stream", 5000));
        LinuxException error = await Assert.ThrowsAsync<LinuxException>(() => stream.ReadToEndAsync(4999, Token));
        Assert.Equal(Errno.FileTooLarge, error.Errno);
    }

    [Fact]
    public async Task Writing_to_nobody_fails()
    {
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        reading.Dispose();
        using ByteStream stream = new(writing);
        LinuxException error = await Assert.ThrowsAsync<LinuxException>(() => stream.WriteAsync(new byte[1], Token));
        Assert.Equal(Errno.BrokenPipe, error.Errno);
    }

    [Fact]
    public async Task A_transfer_that_waits_can_be_cancelled()
    {
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        using ByteStream reader = new(reading.Duplicate());
        using ByteStream writer = new(writing);
        using CancellationTokenSource end = new();
        Task full = writer.WriteAsync(new byte[Limit], end.Token);
        await end.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => full);
        using (reading)
        {
            // Empty by now or not, the other end stays open.
            using CancellationTokenSource second = new();
            Task<byte[]> empty = reader.ReadToEndAsync(Limit, second.Token);
            await second.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => empty);
        }
    }

    [Fact]
    public void What_is_no_stream_is_refused_and_closed()
    {
        using EventFd other = new();
        FileDescriptor copy = other.Descriptor.Duplicate();
        Assert.Throws<LinuxException>(() => new ByteStream(copy));
        Assert.True(copy.IsClosed);
    }

    private static async Task ExpectArrivalAsync(FileDescriptor reading, FileDescriptor writing, int length)
    {
        byte[] bytes = new byte[length];
        Random.Shared.NextBytes(bytes);
        using ByteStream reader = new(reading);
        Task<byte[]> arriving = reader.ReadToEndAsync(Limit, Token);
        using (ByteStream writer = new(writing))
        {
            await writer.WriteAsync(bytes, Token);
        }

        Assert.Equal(bytes, await arriving);
    }
}

// Regular files and block devices as the storage of a disk.
using System.Diagnostics;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.IoUring;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class BlockFileTests
{
    private const int Block = 4096;
    private const int Megabyte = 1 << 20;

    [Fact]
    public void Writes_reads_and_syncs()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(16 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(2 * Block);
        IoSegment[] segments = [buffer.Segment.Slice(0, 100), buffer.Segment.Slice(200, 50)];
        segments[0].Span.Fill(1);
        segments[1].Span.Fill(2);
        Assert.Equal(150, file.Write(segments, 1000));
        Assert.Equal(150, file.Write(segments, 2000, durable: true));
        Assert.Equal(0, file.DataSync());
        byte[] back = new byte[150];
        Assert.Equal(150, file.Read(back, 2000));
        Assert.Equal(1, back[99]);
        Assert.Equal(2, back[100]);
        Assert.Equal(4, file.Write(new byte[] { 9, 8, 7, 6 }, 0));
        buffer.Span.Clear();
        Assert.Equal(150, file.Read(segments, 0));
        Assert.Equal(9, segments[0].Span[0]);
        Assert.Equal(Block, file.Read(new byte[2 * Block], 15 * Block));
    }

    [Fact]
    public void Tells_what_it_is()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(5000);
        using BlockFile file = BlockFile.Open(path.Path, readOnly: true);
        Assert.False(file.IsBlockDevice);
        Assert.False(file.IsDirect);
        Assert.True(file.IsReadOnly);
        Assert.Equal(5000, file.SizeBytes);
        Assert.Equal(512, file.LogicalBlockSize);
        Assert.Equal(1, file.DirectAlignment);
        Assert.Equal(path.Path, file.Path);
        Assert.False(OpenDescriptors.IsNonBlocking(file.Descriptor));
        Assert.True(OpenDescriptors.IsCloseOnExec(file.Descriptor));
        using (FileStream stream = new(path.Path, FileMode.Open))
        {
            stream.SetLength(9000);
        }

        Assert.Equal(5000, file.SizeBytes);
        Assert.Equal(9000, file.RefreshSize());
        Assert.Equal(9000, file.SizeBytes);
        Assert.Equal(-Errno.BadDescriptor, file.Write(new byte[1], 0));
    }

    [Fact]
    public void A_passed_descriptor_tells_how_it_was_opened()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile readOnly = BlockFile.Open(path.Path, readOnly: true);
        using BlockFile direct = BlockFile.Open(path.Path, direct: true);
        using BlockFile first = BlockFile.FromDescriptor(readOnly.Descriptor.Duplicate(), "first");
        using BlockFile second = BlockFile.FromDescriptor(direct.Descriptor.Duplicate(), "second");
        Assert.True(first.IsReadOnly);
        Assert.False(first.IsDirect);
        Assert.False(second.IsReadOnly);
        Assert.True(second.IsDirect);
        using EventFd event1 = new();
        Assert.Throws<LinuxException>(() => BlockFile.FromDescriptor(event1.Descriptor.Duplicate(), "an eventfd"));
    }

    [Fact]
    public void What_is_no_storage_is_refused_with_a_remedy()
    {
        string directory = Path.GetTempPath();
        string pipe = Path.Combine(directory, $"outboard-{Guid.NewGuid():N}");
        Run("mkfifo", pipe);
        try
        {
            AssertRefused(pipe, readOnly: true, "neither a regular file nor a block device");
        }
        finally
        {
            File.Delete(pipe);
        }

        AssertRefused(Path.Combine(directory, "outboard-missing"), readOnly: false, "does not exist");
        AssertRefused(directory, readOnly: false, "is a directory");
        AssertRefused(directory, readOnly: true, "neither a regular file nor a block device");
        AssertRefused("/dev/zero", readOnly: false, "neither a regular file nor a block device");
    }

    [Fact]
    public void Direct_access_tells_its_alignment_and_it_is_enough()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Megabyte);
        using BlockFile file = BlockFile.Open(path.Path, direct: true);
        Assert.True(file.IsDirect);
        Assert.InRange(file.DirectAlignment, 1, Block);
        Assert.True(int.IsPow2(file.DirectOffsetAlignment));
        using AlignedBuffer buffer = new(2 * Block);
        int memory = file.DirectMemoryAlignment;
        int length = file.DirectOffsetAlignment;
        Assert.Equal(length, file.Write([buffer.Segment.Slice(memory, length)], length));
        Assert.Equal(length, file.Read([buffer.Segment.Slice(memory, length)], length));
    }

    [Fact]
    public void Reads_what_is_cached_without_waiting()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(16 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        IoSegment[] segments = [buffer.Segment];
        buffer.Span.Fill(3);
        Assert.Equal(Block, file.Write(segments, Block));
        buffer.Span.Clear();
        int result = file.TryReadNow(segments, Block);
        if (result == -Errno.NotSupported)
        {
            Assert.False(file.SupportsReadNow);
            Assert.Equal(-Errno.NotSupported, file.TryReadNow(segments, Block));
            return;
        }

        Assert.Equal(Block, result);
        Assert.Equal(3, buffer.Span[0]);
        Assert.True(file.SupportsReadNow);
        Assert.Equal(0, file.TryReadNow(segments, 16 * Block));
    }

    [Fact]
    public void What_is_not_cached_is_not_waited_for()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        using AlignedBuffer buffer = new(Block);
        buffer.Span.Fill(4);
        using (BlockFile direct = BlockFile.Open(path.Path, direct: true))
        {
            Assert.Equal(Block, direct.Write([buffer.Segment], 0));
        }

        using BlockFile file = BlockFile.Open(path.Path);
        int result = file.TryReadNow([buffer.Segment], 0);
        Assert.Contains(result, new[] { -Errno.TryAgain, -Errno.NotSupported, Block });
        Assert.Equal(Block, file.Read([buffer.Segment], 0));
    }

    [Fact]
    public void A_refused_flag_is_remembered_for_writes()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        Assert.True(file.SupportsWriteNow);
        int result = file.TryWriteNow([buffer.Segment], 0);
        Assert.Contains(result, new[] { Block, -Errno.TryAgain, -Errno.NotSupported });
        Assert.Equal(result != -Errno.NotSupported, file.SupportsWriteNow);
        Assert.True(file.SupportsReadNow);
    }

    [Fact]
    public void Discard_gives_space_back()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        using BlockFile file = BlockFile.Open(path.Path);
        FillMegabyte(file);
        long before = AllocatedBytes(path.Path);
        Assert.True(before >= Megabyte);
        Assert.Equal(0, file.Discard(Block, Megabyte - (2 * Block)));
        Assert.Equal(0, file.DataSync());
        Assert.True(AllocatedBytes(path.Path) <= before - (Megabyte / 2));
        Assert.Equal(Megabyte, file.RefreshSize());
        AssertPattern(file, zeroFrom: Block, zeroTo: Megabyte - Block);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Zeroes_keep_or_free_the_space(bool mayUnmap)
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        using BlockFile file = BlockFile.Open(path.Path);
        FillMegabyte(file);
        long before = AllocatedBytes(path.Path);
        int result = file.WriteZeroes(1000, Megabyte - 2000, mayUnmap);
        Assert.SkipWhen(result == -Errno.NotSupported, "this file system has no zero range");
        Assert.Equal(0, result);
        Assert.Equal(0, file.DataSync());
        long after = AllocatedBytes(path.Path);
        Assert.Equal(mayUnmap, after < before - (Megabyte / 2));
        AssertPattern(file, zeroFrom: 1000, zeroTo: Megabyte - 1000);
    }

    [Fact]
    public void Zeroes_without_unmapping_are_refused_where_they_must_be_written()
    {
        using TemporaryFile path = TemporaryFile.InMemory(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        Assert.Equal(-Errno.NotSupported, file.WriteZeroes(0, Block, mayUnmap: false));
        Assert.Equal(0, file.WriteZeroes(0, Block, mayUnmap: true));
        Assert.Equal(-Errno.InvalidArgument, file.Discard(0, 0));
        Assert.Equal(-Errno.InvalidArgument, file.Discard(-1, Block));
        using BlockFile readOnly = BlockFile.Open(path.Path, readOnly: true);
        Assert.Equal(-Errno.BadDescriptor, readOnly.Discard(0, Block));
    }

    [Fact]
    public void Two_writers_exclude_each_other()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile first = BlockFile.Open(path.Path);
        using BlockFile second = BlockFile.Open(path.Path);
        using BlockFile reader = BlockFile.Open(path.Path, readOnly: true);
        Assert.True(first.TryLock(exclusive: true));
        Assert.True(first.TryLock(exclusive: true));
        Assert.False(second.TryLock(exclusive: true));
        Assert.False(reader.TryLock(exclusive: false));
        first.Dispose();
        Assert.True(reader.TryLock(exclusive: false));
        Assert.True(second.TryLock(exclusive: false));
        Assert.False(second.TryLock(exclusive: true));
        reader.Dispose();
        Assert.True(second.TryLock(exclusive: true));
    }

    [Fact]
    public void A_reader_cannot_lock_for_writing()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile reader = BlockFile.Open(path.Path, readOnly: true);
        LinuxException error = Assert.Throws<LinuxException>(() => reader.TryLock(exclusive: true));
        Assert.Contains("read-only", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Errno.NotPermitted, 2, "io_uring_disabled is 2")]
    [InlineData(Errno.NotPermitted, 0, "seccomp")]
    [InlineData(Errno.NotImplemented, -1, "no io_uring")]
    [InlineData(Errno.NoMemory, 0, "RLIMIT_MEMLOCK")]
    [InlineData(Errno.InvalidArgument, 0, "modes")]
    public void A_refusal_of_io_uring_names_reason_and_remedy(int errno, int sysctl, string words)
    {
        string text = RefusalReason.Describe(errno, sysctl);
        Assert.Contains(words, text, StringComparison.Ordinal);
        Assert.Contains("threads", text, StringComparison.Ordinal);
    }

    private static void AssertRefused(string path, bool readOnly, string words)
    {
        LinuxException error = Assert.Throws<LinuxException>(() => BlockFile.Open(path, readOnly));
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
        Assert.Contains(path, error.Message, StringComparison.Ordinal);
    }

    private static void FillMegabyte(BlockFile file)
    {
        byte[] data = new byte[Megabyte];
        Array.Fill(data, (byte)0xC3);
        Assert.Equal(Megabyte, file.Write(data, 0));
        Assert.Equal(0, file.DataSync());
    }

    private static void AssertPattern(BlockFile file, int zeroFrom, int zeroTo)
    {
        byte[] data = new byte[Megabyte];
        Assert.Equal(Megabyte, file.Read(data, 0));
        Assert.True(data.AsSpan(0, zeroFrom).IndexOfAnyExcept((byte)0xC3) < 0);
        Assert.True(data.AsSpan(zeroFrom, zeroTo - zeroFrom).IndexOfAnyExcept((byte)0) < 0);
        Assert.True(data.AsSpan(zeroTo).IndexOfAnyExcept((byte)0xC3) < 0);
    }

    private static long AllocatedBytes(string path) => 512 * long.Parse(Run("stat", "-c", "%b", path));

    private static string Run(string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments) { RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output;
    }
}

// memfd, its seals, and shared mappings of what a peer passes.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class MemoryTests
{
    private const ulong HugePage = 2 << 20;
    private static readonly ulong s_page = (ulong)Environment.SystemPageSize;

    [Fact]
    public void A_memfd_is_zeroed_sealed_and_close_on_exec()
    {
        using FileDescriptor file = MemFd.Create("sealed", 3 * s_page);
        Assert.Equal(3 * s_page, file.FileSizeBytes);
        Assert.Equal(FileKind.Regular, file.Kind);
        Assert.True(MemFd.IsSealedAgainstShrinking(file));
        Assert.True(OpenDescriptors.IsCloseOnExec(file));
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, 3 * s_page);
        Assert.True(mapping.Segment.Span.IndexOfAnyExcept((byte)0) < 0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4095)]
    [InlineData(1 << 20)]
    public void A_sealed_memfd_keeps_its_size(ulong size)
    {
        using FileDescriptor file = MemFd.Create("sealed", s_page);
        LinuxException error = Assert.Throws<LinuxException>(() => MemFd.Resize(file, size));
        Assert.Equal(Errno.NotPermitted, error.Errno);
    }

    [Fact]
    public void What_is_not_sealed_is_known()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("loose", s_page);
        using EventFd event1 = new();
        Assert.False(MemFd.IsSealedAgainstShrinking(file));
        Assert.False(MemFd.IsSealedAgainstShrinking(event1.Descriptor));
        MemFd.Resize(file, 0);
        Assert.Equal(0UL, file.FileSizeBytes);
        Assert.Throws<OverflowException>(() => MemFd.Resize(file, ulong.MaxValue));
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(100, 5000)]
    [InlineData(4096, 4096)]
    [InlineData(4095, 2)]
    [InlineData(8191, 8193)]
    [InlineData(0, 16384)]
    public void Any_offset_and_length_can_be_mapped(int offset, int length)
    {
        using FileDescriptor file = MemFd.Create("odd", 16384);
        using MemoryMapping whole = MemoryMapping.Map(file, 0, 16384);
        for (int i = 0; i < 16384; i++)
        {
            whole.Segment.Span[i] = (byte)((i * 7) + (i >> 8));
        }

        using MemoryMapping part = MemoryMapping.Map(file, (ulong)offset, (ulong)length);
        Assert.Equal((ulong)length, part.Length);
        Assert.Equal(length, part.Segment.Length);
        Assert.True(part.Segment.Span.SequenceEqual(whole.Segment.Span.Slice(offset, length)));
        part.Segment.Span[length - 1] = 0xA5;
        Assert.Equal(0xA5, whole.Segment.Span[offset + length - 1]);
    }

    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(0UL, 4097UL)]
    [InlineData(1UL, 4096UL)]
    [InlineData(4096UL, 1UL)]
    [InlineData(ulong.MaxValue, 1UL)]
    [InlineData(ulong.MaxValue - 4095, 4096UL)]
    [InlineData(0UL, ulong.MaxValue)]
    [InlineData(1UL, long.MaxValue)]
    [InlineData(long.MaxValue, long.MaxValue)]
    public void What_the_file_does_not_have_cannot_be_mapped(ulong offset, ulong length)
    {
        using FileDescriptor file = MemFd.Create("short", 4096);
        LinuxException error = Assert.Throws<LinuxException>(() => MemoryMapping.Map(file, offset, length));
        Assert.Equal("mmap", error.Call);
        Assert.Equal(Errno.InvalidArgument, error.Errno);
    }

    [Fact]
    public void What_is_no_memory_cannot_be_mapped()
    {
        using EventFd event1 = new();
        Assert.Throws<LinuxException>(() => MemoryMapping.Map(event1.Descriptor, 0, s_page));
        using TemporaryFile path = TemporaryFile.OnDisk((long)s_page);
        using BlockFile readOnly = BlockFile.Open(path.Path, readOnly: true);
        Assert.Throws<LinuxException>(() => MemoryMapping.Map(readOnly.Descriptor, 0, s_page));
        using MemoryMapping mapping = MemoryMapping.Map(readOnly.Descriptor, 0, s_page, writable: false);
        Assert.Equal(0, mapping.Segment.Span[0]);
    }

    [Fact]
    public void A_mapping_outlives_the_descriptor_and_ends_once()
    {
        FileDescriptor file = MemFd.Create("closed", s_page);
        MemoryMapping mapping = MemoryMapping.Map(file, 0, s_page);
        file.Dispose();
        mapping.Segment.Span[0] = 1;
        Assert.Equal(1, mapping.Segment.Span[0]);
        mapping.Dispose();
        mapping.Dispose();
    }

    [Fact]
    public void Huge_pages_are_mapped_or_refused_before_they_are_touched()
    {
        if (long.Parse(File.ReadAllText("/proc/sys/vm/nr_hugepages")) == 0)
        {
            LinuxException error = Assert.Throws<LinuxException>(() =>
            {
                using FileDescriptor none = MemFd.Create("huge", HugePage, hugePages: true);
                using MemoryMapping mapping = MemoryMapping.Map(none, 0, HugePage);
            });
            Assert.Equal(Errno.NoMemory, error.Errno);
            Assert.Contains("nr_hugepages", error.Message, StringComparison.Ordinal);
            return;
        }

        using FileDescriptor file = MemFd.CreateUnsealed("huge", 2 * HugePage, hugePages: true);
        using MemoryMapping part = MemoryMapping.Map(file, 12345, HugePage);
        part.Segment.Span[0] = 7;
        using MemoryMapping whole = MemoryMapping.Map(file, 0, 2 * HugePage);
        Assert.Equal(7, whole.Segment.Span[12345]);
        whole.Segment.Span[(int)HugePage] = 8;
        MemFd.Resize(file, HugePage);
        Assert.Equal(0, whole.Segment.Span[(int)HugePage]);
        Assert.True(whole.IsTruncated);
        Assert.Equal(7, whole.Segment.Span[12345]);
        Assert.False(part.IsTruncated);
    }

    [Fact]
    public void An_aligned_buffer_is_aligned_zeroed_and_its_owners()
    {
        AlignedBuffer buffer = new(10_000);
        Assert.Equal(0UL, buffer.Segment.Address % s_page);
        Assert.Equal(10_000, buffer.Span.Length);
        Assert.True(buffer.Span.IndexOfAnyExcept((byte)0) < 0);
        buffer.Span.Fill(1);
        buffer.Dispose();
        buffer.Dispose();
        Assert.Throws<ObjectDisposedException>(() => buffer.Segment);
        Assert.Throws<ArgumentOutOfRangeException>(() => new AlignedBuffer(0));
        Assert.Throws<LinuxException>(() => new AlignedBuffer(1L << 60));
    }

    [Fact]
    public void Segments_are_sliced_within_their_bounds()
    {
        using AlignedBuffer buffer = new(100);
        IoSegment segment = buffer.Segment;
        Assert.Equal(0, segment.Slice(100, 0).Length);
        Assert.Equal(segment.Address + 10, segment.Slice(10, 90).Address);
        Assert.Throws<ArgumentOutOfRangeException>(() => segment.Slice(1, 100));
        Assert.Throws<ArgumentOutOfRangeException>(() => segment.Slice(-1, 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => segment.Slice(101, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => segment.Slice(1, long.MaxValue));
    }
}

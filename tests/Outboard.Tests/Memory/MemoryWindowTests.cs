// The bounds of a window onto shared memory.
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class MemoryWindowTests : IDisposable
{
    private readonly DriverMemory _memory = new(4096);

    public void Dispose() => _memory.Dispose();

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(7u)]
    [InlineData(8u)]
    [InlineData(9u)]
    [InlineData(64u)]
    public void Reads_and_writes_stay_inside(uint length)
    {
        Assert.True(_memory.Memory.TryGetWindow(_memory.GuestAddress + 16, length, out MemoryWindow window));
        Assert.Equal(length, (uint)window.Span.Length);
        for (uint offset = 0; offset <= length + 1; offset++)
        {
            Check<byte>(window, offset, 1, 0xA5);
            Check<ushort>(window, offset, 2, 0xA5B6);
            Check<ulong>(window, offset, 8, 0x1122_3344_5566_7788);
        }

        foreach (uint offset in new[] { uint.MaxValue, uint.MaxValue - 1, uint.MaxValue - 7 })
        {
            Check<ulong>(window, offset, 8, 1);
            Assert.Throws<ArgumentOutOfRangeException>(() => window.ReadAcquire16(offset));
            Assert.Throws<ArgumentOutOfRangeException>(() => window.WriteRelease16(offset, 1));
        }

        Span<byte> around = _memory.Memory.Regions[0].Segment.Span;
        Assert.Equal(-1, around[..16].IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, around[(int)(16 + length)..].IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void Ordered_accesses_are_little_endian_copies()
    {
        Assert.True(_memory.Memory.TryGetWindow(_memory.GuestAddress, 8, out MemoryWindow window));
        window.WriteRelease16(2, 0x1234);
        Assert.Equal([0, 0, 0x34, 0x12, 0, 0, 0, 0], window.Span.ToArray());
        Assert.Equal(0x1234, window.ReadAcquire16(2));
        Assert.Equal(0x1234_0000u, window.Read<uint>(0));
    }

    [Theory]
    [InlineData(0, 16, true)]
    [InlineData(8, 16, false)]
    [InlineData(8, 8, true)]
    [InlineData(2, 4, false)]
    [InlineData(1, 2, false)]
    [InlineData(1, 1, true)]
    public void Alignment_is_that_of_the_first_byte(uint offset, uint alignment, bool isAligned)
    {
        Assert.True(_memory.Memory.TryGetWindow(_memory.GuestAddress + offset, 32, out MemoryWindow window));
        Assert.Equal(isAligned, window.IsAligned(alignment));
    }

    private static void Check<T>(MemoryWindow window, uint offset, uint size, T value)
        where T : unmanaged
    {
        if ((ulong)offset + size <= window.Length)
        {
            window.Write(offset, value);
            Assert.Equal(value, window.Read<T>(offset));
        }
        else
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => window.Write(offset, value));
            Assert.Throws<ArgumentOutOfRangeException>(() => window.Read<T>(offset));
        }
    }
}

// Scattered buffers: every copy against one contiguous array.
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class ScatterTests : IDisposable
{
    private static readonly int[][] s_cuts = [[], [1], [7], [0, 3, 0], [1, 1, 1, 1], [5, 2, 0, 9, 1]];

    private readonly DriverMemory _memory = new(1 << 16);

    public static TheoryData<int> Layouts => [.. Enumerable.Range(0, s_cuts.Length)];

    public void Dispose() => _memory.Dispose();

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Bytes_are_copied_out_from_every_offset(int layout)
    {
        IoSegment[] segments = Make(layout, out byte[] flat);
        for (int offset = 0; offset <= flat.Length + 2; offset++)
        {
            for (int length = 0; length <= flat.Length + 2; length++)
            {
                byte[] copy = [.. Enumerable.Repeat((byte)0xEE, length)];
                int count = new ReadableBuffers(segments).CopyTo(offset, copy);
                byte[] expected = [.. flat.Skip(offset).Take(length)];
                Assert.Equal(expected.Length, count);
                Assert.Equal(expected.Concat(Enumerable.Repeat((byte)0xEE, length - count)), copy);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Bytes_are_copied_in_at_every_offset(int layout)
    {
        IoSegment[] segments = Make(layout, out byte[] flat);
        for (int offset = 0; offset <= flat.Length + 2; offset++)
        {
            for (int length = 0; length <= flat.Length + 2; length++)
            {
                WritableBuffers buffers = new(segments);
                buffers.Clear();
                byte[] source = [.. Enumerable.Range(1, length).Select(i => (byte)i)];
                int count = buffers.CopyFrom(offset, source);
                byte[] expected = new byte[flat.Length];
                int fits = Math.Max(0, Math.Min(length, flat.Length - offset));
                source.AsSpan(0, fits).CopyTo(expected.AsSpan(Math.Min(offset, flat.Length)));
                Assert.Equal(fits, count);
                Assert.Equal(expected, Flatten(segments));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Buffers_are_enumerated_in_order(int layout)
    {
        IoSegment[] segments = Make(layout, out byte[] flat);
        List<byte> seen = [];
        foreach (ReadOnlySpan<byte> buffer in new ReadableBuffers(segments))
        {
            seen.AddRange(buffer);
        }

        Assert.Equal(flat, seen);
        Assert.Equal(flat.Length, new ReadableBuffers(segments).Length);
        Assert.Equal(flat.Length, new WritableBuffers(segments).Length);
        foreach (Span<byte> buffer in new WritableBuffers(segments))
        {
            buffer.Fill(9);
        }

        Assert.All(Flatten(segments), value => Assert.Equal(9, value));
    }

    private IoSegment[] Make(int layout, out byte[] flat)
    {
        IoSegment[] segments =
            [.. s_cuts[layout].Select(n => _memory.Allocate((uint)n + 1, 1).Memory.Slice(0, n))];
        byte value = 0;
        foreach (IoSegment segment in segments)
        {
            foreach (ref byte b in segment.Span)
            {
                b = ++value;
            }
        }

        flat = Flatten(segments);
        return segments;
    }

    private static byte[] Flatten(IoSegment[] segments) => [.. segments.SelectMany(segment => segment.Span.ToArray())];
}

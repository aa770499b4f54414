// What a device takes off a chain: headers cut at every byte, trailers, detached requests that are completed once.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class DescriptorChainTests : IDisposable
{
    private readonly RawRing _ring = new(64);
    private readonly Virtqueue _queue;
    private readonly DriverBuffer _buffer;

    public DescriptorChainTests()
    {
        _queue = _ring.Open();
        _buffer = _ring.Memory.Allocate(64);
        for (int i = 0; i < 64; i++)
        {
            _buffer.Span[i] = (byte)(i + 1);
        }
    }

    public void Dispose()
    {
        _queue.Dispose();
        _ring.Dispose();
    }

    [Fact]
    public void A_header_is_found_however_it_is_cut()
    {
        for (uint first = 0; first <= 20; first++)
        {
            for (uint second = 0; first + second <= 20; second++)
            {
                DescriptorChain chain = Take([first, second, 20 - first - second]);
                Assert.True(chain.TryTakeHeader(out Header header));
                Assert.Equal(0x0807_0605_0403_0201UL, header.First);
                Assert.Equal(0x0C0B_0A09u, header.Second);
                byte[] rest = new byte[20];
                Assert.Equal(8, chain.Readable.Length);
                Assert.Equal(8, chain.Readable.CopyTo(0, rest));
                Assert.Equal(_buffer.Span.Slice(12, 8), rest.AsSpan(0, 8));
                Assert.DoesNotContain(chain.Readable.Segments.ToArray(), segment => segment.Length == 0);
                Assert.False(chain.TryTakeHeader(out Header none));
                Assert.Equal(default, none);
                Assert.Equal(8, chain.Readable.Length);
                chain.Complete(0);
            }
        }
    }

    [Theory]
    [InlineData(new uint[] { 0 })]
    [InlineData(new uint[] { 11 })]
    [InlineData(new uint[] { 5, 6 })]
    public void A_header_that_is_too_short_is_none_and_takes_nothing(uint[] lengths)
    {
        DescriptorChain chain = Take(lengths);
        Assert.False(chain.TryTakeHeader(out Header header));
        Assert.Equal(default, header);
        Assert.Equal(lengths.Sum(n => n), chain.Readable.Length);
    }

    [Fact]
    public void A_header_of_the_whole_chain_leaves_nothing()
    {
        DescriptorChain chain = Take([12]);
        Assert.True(chain.TryTakeHeader(out Header _));
        Assert.Equal(0, chain.Readable.Length);
        Assert.True(chain.Readable.Segments.IsEmpty);
    }

    [Theory]
    [InlineData(new uint[] { 10, 1 }, 1, true, 10)]
    [InlineData(new uint[] { 11 }, 1, true, 10)]
    [InlineData(new uint[] { 1 }, 1, true, 0)]
    [InlineData(new uint[] { 10, 2 }, 3, false, 12)]
    [InlineData(new uint[] { }, 1, false, 0)]
    [InlineData(new uint[] { 10, 0 }, 1, true, 9)]
    public void A_trailer_is_cut_off_the_end(uint[] lengths, int bytes, bool isThere, long left)
    {
        DescriptorChain chain = Take(lengths, RawRing.Write);
        long all = chain.Writable.Length;
        Assert.Equal(isThere, chain.TryTakeTrailer(bytes, out IoSegment trailer));
        Assert.Equal(left, chain.Writable.Length);
        if (isThere)
        {
            Assert.Equal(bytes, trailer.Length);
            Assert.Equal((byte)all, trailer.Span[0]);
        }
    }

    [Fact]
    public void Readable_and_writable_buffers_do_not_mix()
    {
        _ring.Describe(0, _buffer.Slice(0, 5), RawRing.Next, 1);
        _ring.Describe(1, _buffer.Slice(5, 6), RawRing.Next | RawRing.Write, 2);
        _ring.Describe(2, _buffer.Slice(11, 7), RawRing.Write);
        _ring.Offer(0);
        Assert.True(_queue.TryTake(out DescriptorChain chain));
        Assert.Equal(5, chain.Readable.Length);
        Assert.Equal(13, chain.Writable.Length);
        Assert.True(chain.TryTakeHeader(out byte first));
        Assert.True(chain.TryTakeTrailer(7, out _));
        Assert.Equal(1, first);
        Assert.Equal(4, chain.Readable.Length);
        Assert.Equal(6, chain.Writable.Length);
    }

    [Fact]
    public void A_request_is_completed_once()
    {
        PendingRequest request = Take([4]).Detach();
        Assert.Equal(4, request.Readable.Length);
        request.Complete(7);
        Assert.Throws<InvariantException>(() => request.Complete(7));
        Assert.Throws<InvariantException>(() => request.Readable.Length);
        Assert.Throws<InvariantException>(() => request.Writable.Length);
        _queue.Publish();
        Assert.Equal(1, _ring.UsedIndex);
    }

    [Fact]
    public void An_old_request_does_not_complete_the_next_one_of_its_slot()
    {
        PendingRequest old = Take([4]).Detach();
        old.Complete(0);
        PendingRequest next = Take([4]).Detach();
        Assert.Equal(old.Slot, next.Slot);
        Assert.Throws<InvariantException>(() => old.Complete(0));
        Assert.Equal(1, _queue.InFlight);
        next.Complete(0);
        Assert.Equal(0, _queue.InFlight);
    }

    [Fact]
    public void Copies_of_a_request_stand_for_the_same_one()
    {
        DescriptorChain chain = Take([4]);
        PendingRequest first = chain.Detach();
        PendingRequest second = chain.Detach();
        first.Complete(0);
        Assert.Throws<InvariantException>(() => second.Complete(0));
    }

    [Fact]
    public async Task A_queue_without_a_worker_is_completed_on_its_own_thread_only()
    {
        PendingRequest request = Take([4]).Detach();
        Task elsewhere = Task.Factory.StartNew(
            () => request.Complete(0), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await Assert.ThrowsAsync<InvariantException>(() => elsewhere);
    }

    [Fact]
    public void A_request_that_outlives_its_queue_touches_nothing()
    {
        using RawRing ring = new(2048);
        Virtqueue queue = ring.Open();
        ring.OfferOne(2047, ring.Memory.Allocate(16), RawRing.Write);
        Assert.True(queue.TryTake(out DescriptorChain chain));
        PendingRequest request = chain.Detach();
        queue.Dispose();
        Assert.Throws<InvariantException>(() => request.Writable.Length);
        Assert.Throws<InvariantException>(() => request.Readable.Length);
        request.Complete(5);
        Assert.Equal(0, ring.UsedIndex);
    }

    private DescriptorChain Take(ReadOnlySpan<uint> lengths, ushort flags = 0)
    {
        uint at = 0;
        _ring.Describe(0, 0, 0, flags);
        for (int i = 0; i < lengths.Length; i++)
        {
            ushort next = (ushort)(i + 1 < lengths.Length ? RawRing.Next : 0);
            _ring.Describe(i, _buffer.Slice(at, lengths[i]), (ushort)(next | flags), (ushort)(i + 1));
            at += lengths[i];
        }

        _ring.Offer(0);
        Assert.True(_queue.TryTake(out DescriptorChain chain));
        return chain;
    }

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private readonly record struct Header(ulong First, uint Second);
}

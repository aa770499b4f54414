// One queue towards the back-end of a RelayedDevice: a ring, and blocks of memory for what requests carry. Allocated
// once; nothing is allocated for a request.
//
//   Forward   the chain's readable bytes are copied into blocks; its writable ones too, since a device need not write
//             all of them, and what it left alone must stay; the blocks are made available, as a chain of their own
//   Collect   the writable blocks are copied back, the chain is completed
//
// A trailer of one byte (a status) is kept apart, so that a migration copies its page whatever number of bytes the
// device says it wrote. The queue outlives its handlers: what one left behind is collected by the next, and dropped.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend.Relay;

/// <summary>How an attempt to forward a chain ended.</summary>
internal enum RelayOutcome
{
    /// <summary>The back-end has it.</summary>
    Forwarded,

    /// <summary>Not now: something must be completed first.</summary>
    NoRoom,

    /// <summary>Never: it is longer than all the room there is.</summary>
    TooLong,
}

/// <summary>A queue towards the back-end.</summary>
internal sealed class RelayQueue : IDisposable
{
    /// <summary>Descriptors of the ring: as many requests as common drivers have in flight.</summary>
    internal const int MostDescriptors = 256;

    /// <summary>Bytes of a block: a common request takes two.</summary>
    private const int BlockBytes = 16 << 10;

    /// <summary>Blocks of a queue: 16 MiB, of which untouched pages cost nothing.</summary>
    private const int BlockCount = 1024;

    /// <summary>Blocks of one chain: 8 MiB, more than devices let drivers ask for at once.</summary>
    private const int MostBlocks = 512;

    /// <summary>Addresses between the memories of two queues.</summary>
    private const ulong AddressStride = 1UL << 32;

    private const int None = -1;

    private readonly DriverBuffer _pool;
    private readonly int[] _nextBlock = new int[BlockCount];
    private readonly DriverBuffer[] _readable = new DriverBuffer[MostBlocks];
    private readonly DriverBuffer[] _writable = new DriverBuffer[MostBlocks];
    private readonly Slot[] _slots;
    private readonly Stack<int> _freeSlots;
    private readonly int _mostBlocks;
    private int _freeBlock;
    private int _freeBlocks = BlockCount;
    private volatile bool _isLost;

    internal RelayQueue(int index, int limit, ulong features)
    {
        int size = MostDescriptors;
        while (size > limit)
        {
            size /= 2;
        }

        int entries = (features & VirtioFeatures.IndirectDescriptors) != 0 ? MostBlocks : 0;
        ulong ringBytes = ((ulong)size * (64 + ((ulong)entries * SplitRing.DescriptorBytes))) + (64 << 10);
        Memory = new DriverMemory(
            ringBytes + ((ulong)BlockCount * BlockBytes), ((ulong)index + 1) * AddressStride);
        Queue = new FrontendQueue(DriverQueue.Create(index, size, Memory, features, entries), Memory);
        _pool = Memory.Allocate(BlockCount * BlockBytes, 4096);
        _mostBlocks = entries > 0 ? MostBlocks : size;
        _slots = new Slot[size];
        _freeSlots = new Stack<int>(Enumerable.Range(0, size));
        for (int i = 0; i < BlockCount; i++)
        {
            _nextBlock[i] = i + 1 < BlockCount ? i + 1 : None;
        }
    }

    /// <summary>Memory that the back-end sees.</summary>
    internal DriverMemory Memory { get; }

    internal FrontendQueue Queue { get; }

    /// <summary>Becomes readable when something was completed, or when the back-end is gone.</summary>
    internal FileDescriptor Waitable => Queue.Call.Descriptor;

    /// <summary>Whether the back-end is gone, or returned what it does not hold.</summary>
    internal bool IsLost => _isLost;

    public void Dispose()
    {
        Queue.Dispose();
        Memory.Dispose();
    }

    /// <summary>The back-end is gone. From any thread.</summary>
    internal void Lose()
    {
        _isLost = true;
        try
        {
            Queue.Call.Signal();
        }
        catch (ObjectDisposedException)
        {
            // Nobody waits any more.
        }
    }

    /// <summary>Copies a chain, which is kept until it is completed, and makes it available.</summary>
    internal RelayOutcome TryForward(scoped in DescriptorChain chain)
    {
        long readable = chain.Readable.Length;
        long writable = chain.Writable.Length;
        int readableBlocks = Blocks(readable);
        int blocks = readableBlocks + Blocks(writable);
        if (readable > (long)MostBlocks * BlockBytes || writable > (long)MostBlocks * BlockBytes
            || blocks == 0 || blocks > _mostBlocks)
        {
            return RelayOutcome.TooLong;
        }

        if (_freeSlots.Count == 0 || _freeBlocks < blocks || Queue.Ring.FreeDescriptors < Descriptors(blocks))
        {
            return RelayOutcome.NoRoom;
        }

        int index = _freeSlots.Pop();
        ref Slot slot = ref _slots[index];
        slot = new Slot { FirstReadable = None, FirstWritable = None, WritableBytes = writable };
        int count = Fill(chain.Readable.Segments, readable, _readable, ref slot.FirstReadable);
        int writableCount = Fill(chain.Writable.Segments, writable, _writable, ref slot.FirstWritable);
        slot.HasTrailer = writable > 0 && chain.TryTakeTrailer(1, out slot.Trailer);
        slot.Request = chain.Detach();
        slot.IsHeld = true;
        _ = Queue.Ring.TryAdd(_readable.AsSpan(0, count), _writable.AsSpan(0, writableCount), (uint)index);
        return RelayOutcome.Forwarded;
    }

    /// <summary>Completes what the back-end has completed.</summary>
    /// <returns>Whether there is room now that was not before.</returns>
    internal bool Collect()
    {
        bool hasRoom = false;
        if (_isLost)
        {
            return false;
        }

        try
        {
            do
            {
                while (Queue.Ring.TryCollect(out uint token, out uint written))
                {
                    Complete((int)token, written);
                    hasRoom = true;
                }
            }
            while (Queue.Ring.ArmCalls());
        }
        catch (InvalidDataException)
        {
            _isLost = true;
        }

        return hasRoom;
    }

    /// <summary>Gives up what the back-end will not complete any more.</summary>
    internal void LetGo()
    {
        for (int i = 0; i < _slots.Length; i++)
        {
            if (_slots[i].IsHeld)
            {
                _slots[i].IsHeld = false;
                _slots[i].Request.LetGo();
            }
        }
    }

    /// <summary>The handler ends: nobody waits for what it forwarded.</summary>
    internal void Orphan()
    {
        for (int i = 0; i < _slots.Length; i++)
        {
            _slots[i].IsHeld = false;
        }
    }

    private static int Blocks(long bytes) => (int)((bytes + BlockBytes - 1) / BlockBytes);

    private int Descriptors(int blocks) => _mostBlocks == MostBlocks ? 1 : blocks;

    private Span<byte> Block(int block) => _pool.Span.Slice(block * BlockBytes, BlockBytes);

    /// <summary>Takes blocks for bytes, and copies these there.</summary>
    private int Fill(ReadOnlySpan<IoSegment> segments, long bytes, Span<DriverBuffer> buffers, ref int first)
    {
        int count = 0;
        ref int link = ref first;
        for (long at = 0; at < bytes; at += BlockBytes)
        {
            int block = _freeBlock;
            _freeBlock = _nextBlock[block];
            _freeBlocks--;
            link = block;
            link = ref _nextBlock[block];
            int length = (int)Math.Min(bytes - at, BlockBytes);
            buffers[count++] = _pool.Slice((uint)(block * BlockBytes), (uint)length);
            Scatter.CopyTo(segments, at, Block(block)[..length]);
        }

        link = None;
        return count;
    }

    private void Complete(int index, uint written)
    {
        ref Slot slot = ref _slots[index];
        if (slot.IsHeld)
        {
            slot.IsHeld = false;
            long bytes = slot.WritableBytes - (slot.HasTrailer ? 1 : 0);
            long at = 0;
            WritableBuffers target = slot.Request.Writable;
            for (int block = slot.FirstWritable; block != None; block = _nextBlock[block], at += BlockBytes)
            {
                int length = (int)Math.Min(bytes - at, BlockBytes);
                target.CopyFrom(at, Block(block)[..Math.Max(length, 0)]);
                if (slot.HasTrailer && slot.WritableBytes - at <= BlockBytes)
                {
                    slot.Trailer.Span[0] = Block(block)[(int)(slot.WritableBytes - 1 - at)];
                }
            }

            slot.Request.Complete((uint)Math.Min(written, slot.WritableBytes));
        }

        Release(slot.FirstReadable);
        Release(slot.FirstWritable);
        _freeSlots.Push(index);
    }

    private void Release(int first)
    {
        while (first != None)
        {
            int next = _nextBlock[first];
            _nextBlock[first] = _freeBlock;
            _freeBlock = first;
            _freeBlocks++;
            first = next;
        }
    }

    /// <summary>A chain that the back-end has.</summary>
    private struct Slot
    {
        internal PendingRequest Request;
        internal IoSegment Trailer;
        internal long WritableBytes;
        internal int FirstReadable;
        internal int FirstWritable;
        internal bool HasTrailer;

        /// <summary>Whether somebody waits for it.</summary>
        internal bool IsHeld;
    }
}

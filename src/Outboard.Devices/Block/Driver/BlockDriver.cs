// The driver's side of virtio-blk, virtio-v1.3 "5.2.6 Device Operation": requests are made in preallocated slots, and
// nothing is allocated for a request.
//
// A slot owns 128 bytes and a data buffer; what the driver writes and what the device writes lie in two cache lines:
//    0 header (16, device reads)   16 range of discard and write-zeroes (16, device reads)
//   64 status (1, device writes)   80 identity (20, device writes)
//   data buffer: page-aligned, one descriptor, or several of SegmentBytes each
//
// The caller chooses slots and remembers what each is for. One thread uses a driver: one queue, one driver.
// Not here: secure erase, zoned requests, lifetime; reconnection (DriverQueue.ResubmitInFlight is its ring half).
using System.Runtime.InteropServices;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block.Driver;

/// <summary>Drives one queue of a virtio-blk device.</summary>
public sealed partial class BlockDriver
{
    /// <summary>The status of a request that the device returned without writing one.</summary>
    public const BlockStatus NotWritten = (BlockStatus)0xFF;

    private const uint SlotBytes = 128;
    private const uint RangeOffset = 16;
    private const uint StatusOffset = 64;
    private const uint IdentityOffset = 80;
    private const uint DataAlignment = 4096;

    private readonly DriverQueueLink _queue;
    private readonly DriverQueue _ring;
    private readonly Slot[] _slots;
    private readonly uint _segmentBytes;
    private readonly DriverBuffer[] _readable;
    private readonly DriverBuffer[] _writable;

    /// <summary>Makes the slots in the queue's memory, see <see cref="MemoryBytes"/>.</summary>
    /// <param name="queue">The queue.</param>
    /// <param name="slots">Requests that can be in flight.</param>
    /// <param name="dataBytes">Largest transfer.</param>
    /// <param name="segmentBytes">Length of each data descriptor; 0 gives a transfer one descriptor.</param>
    public BlockDriver(DriverQueueLink queue, int slots, uint dataBytes, uint segmentBytes = 0)
    {
        ArgumentNullException.ThrowIfNull(queue);
        ArgumentOutOfRangeException.ThrowIfLessThan(slots, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(dataBytes, (uint)BlockConfig.SectorBytes);
        _queue = queue;
        _ring = queue.Ring;
        SlotCount = slots;
        DataBytes = dataBytes;
        _segmentBytes = segmentBytes == 0 ? dataBytes : segmentBytes;
        int segments = (int)((dataBytes + _segmentBytes - 1) / _segmentBytes);
        _readable = new DriverBuffer[segments + 1];
        _writable = new DriverBuffer[segments + 1];

        // One slot more than asked for: it belongs to the synchronous methods.
        _slots = new Slot[slots + 1];
        for (int i = 0; i < _slots.Length; i++)
        {
            DriverBuffer control = queue.Memory.Allocate(SlotBytes);
            _slots[i] = new Slot
            {
                Header = control.Slice(0, BlockRequestHeader.Bytes),
                Range = control.Slice(RangeOffset, BlockRange.Bytes),
                Status = control.Slice(StatusOffset, 1),
                Identity = control.Slice(IdentityOffset, BlockConfig.IdBytes),
                Data = queue.Memory.Allocate(dataBytes, DataAlignment),
            };
        }
    }

    /// <summary>Slots that the caller may use: 0 to SlotCount - 1.</summary>
    public int SlotCount { get; }

    /// <summary>Largest transfer in bytes.</summary>
    public uint DataBytes { get; }

    /// <summary>Requests in flight.</summary>
    public int InFlight => _ring.InFlight;

    /// <summary>Bytes of driver memory that a driver with these parameters takes, its ring aside.</summary>
    public static ulong MemoryBytes(int slots, uint dataBytes) =>
        ((ulong)slots + 1) * (SlotBytes + dataBytes + DataAlignment);

    /// <summary>The data buffer of a slot, to be filled before a write, or read after a read.</summary>
    public Span<byte> Data(int slot) => _slots[slot].Data.Span;

    /// <summary>Whether a slot's request is in flight.</summary>
    public bool IsBusy(int slot) => _slots[slot].IsBusy;

    /// <summary>Adds a read into the slot's data buffer; seen by the device after <see cref="Submit"/>.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryRead(int slot, ulong sector, uint bytes) =>
        TryTransfer(slot, BlockRequestType.In, sector, bytes, deviceWrites: true);

    /// <summary>Adds a write of the slot's data buffer.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryWrite(int slot, ulong sector, uint bytes) =>
        TryTransfer(slot, BlockRequestType.Out, sector, bytes, deviceWrites: false);

    /// <summary>Adds a flush: what was completed before it is durable when it succeeds.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryFlush(int slot) => TryAdd(slot, BlockRequestType.Flush, 0, 1, 0);

    /// <summary>Adds a discard of one range.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryDiscard(int slot, ulong sector, uint sectors) =>
        TryRange(slot, BlockRequestType.Discard, new BlockRange(sector, sectors, 0));

    /// <summary>Adds a request that writes zeroes to one range.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="sector">First sector.</param>
    /// <param name="sectors">Sectors.</param>
    /// <param name="mayUnmap">Whether the device may free the range.</param>
    /// <returns>False when the ring is full.</returns>
    public bool TryWriteZeroes(int slot, ulong sector, uint sectors, bool mayUnmap = false) =>
        TryRange(slot, BlockRequestType.WriteZeroes, new BlockRange(sector, sectors, mayUnmap ? BlockRange.Unmap : 0));

    /// <summary>Adds a request for the identity string; <see cref="Identity"/> has it afterwards.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryGetId(int slot)
    {
        _writable[0] = _slots[slot].Identity;
        return TryAdd(slot, BlockRequestType.GetId, 0, 1, 1);
    }

    /// <summary>The identity bytes that a slot's request brought: a string, padded with zeroes.</summary>
    public ReadOnlySpan<byte> Identity(int slot) => _slots[slot].Identity.Span;

    /// <summary>Shows added requests to the device, and kicks it if it wants that.</summary>
    public void Submit() => _queue.Submit();

    /// <summary>Takes finished requests.</summary>
    /// <returns>How many were written to <paramref name="completions"/>.</returns>
    /// <exception cref="InvalidDataException">The device returned what it does not hold.</exception>
    public int Collect(Span<BlockCompletion> completions)
    {
        int count = 0;
        while (count < completions.Length && _ring.TryCollect(out uint token, out uint written))
        {
            ref Slot slot = ref _slots[token];
            slot.IsBusy = false;
            completions[count++] = new BlockCompletion((int)token, (BlockStatus)slot.Status.Span[0], written);
        }

        return count;
    }

    private bool TryTransfer(int slot, BlockRequestType type, ulong sector, uint bytes, bool deviceWrites)
    {
        if (bytes == 0 || bytes > DataBytes)
        {
            ThrowTransferSize(bytes);
        }

        DriverBuffer data = _slots[slot].Data;
        DriverBuffer[] target = deviceWrites ? _writable : _readable;
        int count = deviceWrites ? 0 : 1;
        for (uint done = 0; done < bytes; done += _segmentBytes)
        {
            target[count++] = data.Slice(done, Math.Min(_segmentBytes, bytes - done));
        }

        return deviceWrites
            ? TryAdd(slot, type, sector, 1, count)
            : TryAdd(slot, type, sector, count, 0);
    }

    private bool TryRange(int slot, BlockRequestType type, BlockRange range)
    {
        DriverBuffer buffer = _slots[slot].Range;
        MemoryMarshal.Write(buffer.Span, in range);
        _readable[1] = buffer;
        return TryAdd(slot, type, 0, 2, 0);
    }

    /// <summary>Puts header and status around what the caller placed in the two arrays, and adds the chain.</summary>
    private bool TryAdd(int slot, BlockRequestType type, ulong sector, int readableCount, int writableCount)
    {
        ref Slot request = ref _slots[slot];
        if (request.IsBusy)
        {
            throw new InvalidOperationException($"slot {slot} has a request in flight");
        }

        BlockRequestHeader header = new(type, 0, sector);
        MemoryMarshal.Write(request.Header.Span, in header);
        request.Status.Span[0] = (byte)NotWritten;
        _readable[0] = request.Header;
        _writable[writableCount] = request.Status;
        request.IsBusy = _ring.TryAdd(
            _readable.AsSpan(0, readableCount), _writable.AsSpan(0, writableCount + 1), (uint)slot);
        return request.IsBusy;
    }

    private void ThrowTransferSize(uint bytes) =>
        throw new ArgumentOutOfRangeException(nameof(bytes), $"{bytes} bytes, a slot transfers 1 to {DataBytes}");

    private struct Slot
    {
        internal DriverBuffer Header;
        internal DriverBuffer Range;
        internal DriverBuffer Status;
        internal DriverBuffer Identity;
        internal DriverBuffer Data;
        internal bool IsBusy;
    }
}

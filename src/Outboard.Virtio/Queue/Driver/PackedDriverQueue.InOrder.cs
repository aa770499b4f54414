// IN_ORDER for the driver's side of a packed virtqueue, virtio-v1.3 "2.8.8 In-order use of descriptors". Buffer ids go
// round like descriptors, one for each chain, so the oldest chain's id is known, and the one after it. A used
// descriptor names the last chain of a batch that begins with the oldest; the device goes on behind its descriptors.
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

public sealed partial class PackedDriverQueue
{
    private bool TryCollectOldest(out uint token, out uint written)
    {
        token = 0;
        written = 0;
        if (_batchLast == NoBatch)
        {
            if (!HasUsed)
            {
                return false;
            }

            OpenBatch();
        }

        ref Held held = ref _held[_oldestId];
        token = held.Token;
        written = WritableBytes(_oldestId);
        if (_oldestId == _batchLast)
        {
            written = _batchWritten;
            _batchLast = NoBatch;
        }

        _oldestId = After(_oldestId);
        _used = _used.Advance(held.Descriptors, Size);
        FreeDescriptors += held.Descriptors;
        held = default;
        _freeIdCount++;
        InFlight--;
        return true;
    }

    /// <summary>Reads the next used descriptor. It must name a chain in flight.</summary>
    private void OpenBatch()
    {
        PackedDescriptor descriptor = _ring.Read<PackedDescriptor>(Offset(_used));
        if (descriptor.Id >= Size || !_held[descriptor.Id].IsInFlight)
        {
            throw new InvalidDataException(
                $"queue {Index}: the device returned buffer {descriptor.Id}, which it does not hold");
        }

        _batchLast = descriptor.Id;
        _batchWritten = (descriptor.Flags & SplitRing.Write) != 0 ? descriptor.Length : 0;
    }

    private ushort After(ushort id) => (ushort)(id + 1 == Size ? 0 : id + 1);
}

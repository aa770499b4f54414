// IN_ORDER for the driver's side of a split virtqueue, virtio-v1.3 "2.7.9 In-order use of descriptors". Descriptor x is
// followed by x + 1, the last one by the first; so the oldest chain's head is known, and the one after it.
//
//   used.idx has moved   read the entry at nextUsed: the last chain of a batch, which begins with the oldest chain
//                        in flight; it must end before used.idx does
//   each TryCollect      gives the oldest; all but the batch's last were written completely
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

public sealed partial class SplitDriverQueue
{
    private void CollectOldest(out uint token, out uint written)
    {
        if (_batchLast == NoBatch)
        {
            OpenBatch();
        }

        ref Held held = ref _held[_oldest];
        token = held.Token;
        written = WritableBytes(_oldest);
        if (_oldest == _batchLast)
        {
            written = _batchWritten;
            _batchLast = NoBatch;
        }

        _oldest = After(_oldest);
        FreeDescriptors += held.Descriptors;
        held = default;
        _nextUsed++;
        InFlight--;
    }

    /// <summary>Reads the next used entry, and checks that it names a chain that may be the last of a batch.</summary>
    private void OpenBatch()
    {
        SplitUsedElement element = _used.Read<SplitUsedElement>(SplitRing.EntriesOffset + (8 * (_nextUsed & _mask)));
        int most = (ushort)(_seenUsed - _nextUsed);
        ushort head = _oldest;
        for (int i = 1; i <= most && i <= InFlight; i++)
        {
            if (head == element.Id)
            {
                _batchLast = head;
                _batchWritten = element.Length;
                return;
            }

            head = After(head);
        }

        throw new InvalidDataException(
            $"queue {Index}: the device returned chain {element.Id}, which is none of the oldest {most} of {InFlight}");
    }

    private ushort After(ushort head) => (ushort)((uint)(head + _held[head].Descriptors) & _mask);
}

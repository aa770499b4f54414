// How a queue gets rid of requests that nobody will complete: back into the ring, or, when they were overtaken,
// returned with nothing written.
namespace Outboard.Virtio.Queue;

public abstract partial class Virtqueue
{
    /// <summary>
    /// Puts a chain back that was taken last and not used: the next <see cref="TryTake"/> takes it again. Of several
    /// the last one goes back first.
    /// </summary>
    /// <param name="request">The chain.</param>
    /// <param name="position">What <see cref="Position"/> was before it was taken.</param>
    public void PutBack(PendingRequest request, ushort position)
    {
        CheckHeld(request.Slot, request.Generation);
        ref ChainSlot info = ref _slots[request.Slot];
        bool isAgain = (info.State & ChainState.Again) != 0;
        info.State = ChainState.Free;
        info.Generation++;
        _inFlight--;
        if (isAgain)
        {
            // Taking it moved nothing: an earlier process held it.
            UndoTakenAgain(request.Slot);
            Requeue(request.Slot);
        }
        else
        {
            Rewind(request.Slot, position);
        }

        _segments.Release(request.Slot);
    }

    /// <summary>Notes that the device gave a chain up.</summary>
    internal void LetGo(int slot, uint generation)
    {
        CheckHeld(slot, generation);
        ref ChainSlot info = ref _slots[slot];
        info.State |= ChainState.LetGo;
        info.Generation++;
        LetGoCount++;
    }

    /// <summary>
    /// Puts back what was given up, the last one first, as far as it is the end of what was taken; completes the rest.
    /// Nothing else is in flight.
    /// </summary>
    internal void SettleLetGo()
    {
        while (LetGoCount > 0 && FindLastLetGo() is var last and >= 0)
        {
            ref ChainSlot info = ref _slots[last];
            EndLetGo(ref info);
            PutBack(new PendingRequest(this, last, info.Generation), info.Position);
        }

        for (int slot = 0; LetGoCount > 0; slot++)
        {
            if ((_slots[slot].State & ChainState.LetGo) != 0)
            {
                EndLetGo(ref _slots[slot]);
                Complete(slot, _slots[slot].Generation, 0);
            }
        }
    }

    /// <summary>The chain behind which the next one would be taken, if it was given up; -1 otherwise.</summary>
    private int FindLastLetGo()
    {
        ushort end = Position;
        for (int slot = 0; slot < _slots.Length; slot++)
        {
            ref ChainSlot info = ref _slots[slot];
            if ((info.State & (ChainState.LetGo | ChainState.Again)) == ChainState.LetGo
                && PositionAfter(slot, info.Position) == end)
            {
                return slot;
            }
        }

        return -1;
    }

    private void EndLetGo(ref ChainSlot info)
    {
        info.State &= ~ChainState.LetGo;
        LetGoCount--;
    }
}

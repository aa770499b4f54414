// Commands that a driver wants to end early. What no disk has been given can be: a task that waits for a buffer, and a
// command that is still in the ring. The latter is remembered by its place and ended when its turn comes, since its
// completion needs room, and its place in the ring is given back in order. Not here: operations of a disk, which
// cannot be called back without the risk of half of their work; entries of a ring that has to be read by messages.
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Queues;

internal sealed partial class SubmissionQueue
{
    /// <summary>Places in the ring whose commands are ended when they are taken.</summary>
    private readonly HashSet<uint> _aborted = [];

    /// <summary>Ends a command that no disk has been given.</summary>
    /// <returns>Whether there was one of this identifier.</returns>
    internal bool TryAbort(ushort id) => !IsStopping && (TryAbortWaiting(id) || TryAbortInRing(id));

    /// <summary>Where the queue stands, while its worker is halted; or where it stood in another process.</summary>
    internal (uint Head, uint Tail, uint TailRegister, uint[] Aborted) Position
    {
        get => (_head, _tail, _tailRegister, [.. _aborted]);
        set
        {
            (_head, _tail, _tailRegister) = (value.Head, value.Tail, value.TailRegister);
            _aborted.UnionWith(value.Aborted);
            _hasMoved = true;
        }
    }

    private bool TryAbortWaiting(ushort id)
    {
        IoTask? found = null;
        for (int left = _waiting.Count; left > 0; left--)
        {
            IoTask task = _waiting.Dequeue();
            if (found is null && task.Command.Id == id)
            {
                found = task;
            }
            else
            {
                _waiting.Enqueue(task);
            }
        }

        if (found is not null)
        {
            End(found, NvmeStatus.AbortRequested);
        }

        return found is not null;
    }

    private bool TryAbortInRing(ushort id)
    {
        uint tail = ReadTail();
        for (uint at = _head; _isMapped && at != tail; at = at + 1 == Size ? 0 : at + 1)
        {
            if (_ring.Read<NvmeCommand>(at * NvmeCommand.Bytes).Id == id && _aborted.Add(at))
            {
                return true;
            }
        }

        return false;
    }

    private bool TakeAborted(uint place) => _aborted.Count > 0 && _aborted.Remove(place);
}

// In-flight tracking of a split queue, vhost-user "Inflight I/O tracking": a shared record of what this process holds,
// so that the next one can take over after any kill.
//
//   Take     I1  desc[i].counter = counter++          I2  desc[i].inflight = 1
//   Return   I3  desc[i].next = last_batch_head       I4  last_batch_head = i             (for each chain of a batch)
//   Publish  I5  used.idx += batch                    I6  desc[i].inflight = 0 for each   I7  used_idx = used.idx
//
// Put back: desc[i].inflight = 0; the available entry that was taken is taken again.
//
// Each store is made in this order (release). A kill between two of them leaves one of two states: used_idx equals the
// ring's used.idx, then every chain of the batch counts as held and is submitted again; or it does not, then the last
// batch (last_batch_head, as many as the difference) was published, and only its flags have to be cleared.
// CrashAtEveryStoreTests ends the device before each store; why prefixes of the program's order are all that a kill can
// leave is told in PackedInflight.
// The region is shared with the front-end: it is read at recovery only, and not trusted then.
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Inflight;

/// <summary>A split queue's part of the in-flight region.</summary>
internal sealed class SplitInflight
{
    private readonly MemoryWindow _window;
    private readonly int _size;
    private readonly ushort[] _batchNext;
    private ushort _lastBatchHead;
    private ulong _counter;

    private SplitInflight(MemoryWindow window, int size)
    {
        _window = window;
        _size = size;
        _batchNext = new ushort[size];
    }

    /// <summary>Opens the record, and finds out what an earlier process held.</summary>
    /// <param name="window">The queue's region.</param>
    /// <param name="size">Queue size.</param>
    /// <param name="usedIndex">The ring's used.idx.</param>
    /// <param name="held">Heads of chains to be submitted again, in the order in which they were taken; null when the
    /// region is fresh.</param>
    /// <exception cref="VringSetupException">The region is too small or does not belong to this ring.</exception>
    internal static SplitInflight Open(MemoryWindow window, int size, ushort usedIndex, out ushort[]? held)
    {
        uint bytes = SplitInflightSpec.HeaderBytes + ((uint)size * SplitInflightSpec.EntryBytes);
        bool isFresh = InflightHeader.IsFresh(window, size, bytes);
        SplitInflight inflight = new(window, size);
        if (isFresh)
        {
            inflight.Initialize(usedIndex);
            held = null;
            return inflight;
        }

        inflight.FinishLastBatch(usedIndex);
        held = inflight.CollectHeld();
        return inflight;
    }

    /// <summary>Steps I1 and I2.</summary>
    internal void Take(int head)
    {
        uint entry = Entry(head);
        _window.WriteRelease64(entry + SplitInflightSpec.EntryCounter, _counter++);
        _window.WriteRelease8(entry + SplitInflightSpec.EntryInflight, 1);
    }

    /// <summary>Undoes the last Take.</summary>
    internal void PutBack(int head) => _window.WriteRelease8(Entry(head) + SplitInflightSpec.EntryInflight, 0);

    /// <summary>Steps I3 and I4.</summary>
    internal void Return(int head)
    {
        _batchNext[head] = _lastBatchHead;
        _window.WriteRelease16(Entry(head) + SplitInflightSpec.EntryNext, _lastBatchHead);
        _lastBatchHead = (ushort)head;
        _window.WriteRelease16(SplitInflightSpec.LastBatchHead, _lastBatchHead);
    }

    /// <summary>Steps I6 and I7, after the used index was stored.</summary>
    internal void Published(ushort usedIndex, int batch)
    {
        int head = _lastBatchHead;
        for (int i = 0; i < batch; i++)
        {
            _window.WriteRelease8(Entry(head) + SplitInflightSpec.EntryInflight, 0);
            head = _batchNext[head];
        }

        _window.WriteRelease16(SplitInflightSpec.UsedIndex, usedIndex);
    }

    private static uint Entry(int head) => SplitInflightSpec.HeaderBytes + ((uint)head * SplitInflightSpec.EntryBytes);

    /// <summary>
    /// A fresh region records the ring's used index as it is now: a device may start in the middle of a ring's life,
    /// and a zero here would clear a chain that is held.
    /// </summary>
    private void Initialize(ushort usedIndex)
    {
        _window.Span[..(int)(SplitInflightSpec.HeaderBytes + ((uint)_size * SplitInflightSpec.EntryBytes))].Clear();
        _window.WriteRelease16(InflightSpec.DescriptorCountOffset, (ushort)_size);
        _window.WriteRelease16(SplitInflightSpec.UsedIndex, usedIndex);
        _window.WriteRelease16(InflightSpec.VersionOffset, InflightSpec.Version);
    }

    private void FinishLastBatch(ushort usedIndex)
    {
        int batch = (ushort)(usedIndex - _window.Read<ushort>(SplitInflightSpec.UsedIndex));
        int head = _window.Read<ushort>(SplitInflightSpec.LastBatchHead);
        if (batch > _size)
        {
            throw new VringSetupException(
                "inflight", $"used_idx is {batch} behind the ring's, which has {_size} descriptors");
        }

        for (int i = 0; i < batch; i++)
        {
            if (head >= _size)
            {
                throw new VringSetupException("inflight", $"the last batch names descriptor {head} of {_size}");
            }

            _window.WriteRelease8(Entry(head) + SplitInflightSpec.EntryInflight, 0);
            head = _window.Read<ushort>(Entry(head) + SplitInflightSpec.EntryNext);
        }

        _window.WriteRelease16(SplitInflightSpec.UsedIndex, usedIndex);
    }

    private ushort[] CollectHeld()
    {
        List<(ulong Counter, ushort Head)> held = [];
        for (int head = 0; head < _size; head++)
        {
            if (_window.Read<byte>(Entry(head) + SplitInflightSpec.EntryInflight) == 1)
            {
                held.Add((_window.Read<ulong>(Entry(head) + SplitInflightSpec.EntryCounter), (ushort)head));
            }
        }

        held.Sort();
        _counter = held.Count == 0 ? 0 : held[^1].Counter + 1;
        return [.. held.Select(entry => entry.Head)];
    }
}

// In-flight tracking of a packed queue, vhost-user "Inflight I/O tracking". A device overwrites ring descriptors out of
// order, so the record holds copies of the descriptors of every chain that is held, in entries taken from a free list.
//
//   Take     P1  e = free_head: e.num = 0, e.counter = counter++, e.inflight = 1
//            P2  for each descriptor: copied into the entry at free_head; free_head = its next; e.num++; e.last at the
//                last
//            P3  old_free_head = free_head
//   Return   (the queue writes the used descriptor, unless it is the first of a batch; nothing changes here)
//   Publish  P4  desc[e.last].next = free_head, free_head = e for each chain of the batch
//            P5  used_idx and used_wrap_counter move on
//            P6  the batch's first used descriptor, in one store (by the queue)
//            P7  e.inflight = 0 for each chain of the batch           P8  old_free_head = free_head
//            P9  old_used_idx, old_used_wrap_counter = the current ones
//   Put back B1  desc[e.last].next = free_head; free_head = e         B2  old_free_head = e     B3  e.inflight = 0
//
// After a kill the ring tells whether P6 happened: then the record's current values count, else the old ones. The USED
// bit alone tells it: the driver lives on, and may have made that descriptor available again, a lap later. What is
// rolled back may have left flags of used descriptors behind its first one in the ring; the queue takes them back.
// P4 stands here and not in Return because a Take or Put back may come between, whose P3 and B2 commit the free list.
//
// Why any prefix of these stores will do is shown by test: CrashAtEveryStoreTests ends the device before each of them.
// Why only prefixes: a kill takes effect between two instructions. What was stored before becomes visible, in whatever
// order a processor writes it out, and nothing after it was ever stored; so the only order that counts is that of the
// program, which the compiler keeps for release stores. The plain stores (P2's copies, but for the last field) may
// change places among themselves and with the release store before them; the test tries these subsets, too. For the
// same reason what Return overwrites in the ring is stored with release: its copy in the record must come first. Index
// and wrap counter of P5 and P9 lie in one aligned word with their old ones, and change in one store.
// The region is shared with the front-end: it is written here, and read at recovery only, where nothing of it is
// trusted.
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Inflight;

/// <summary>A packed queue's part of the in-flight region.</summary>
internal sealed class PackedInflight
{
    private readonly MemoryWindow _window;
    private readonly int _size;
    private readonly ushort[] _next;
    private readonly ushort[] _last;
    private readonly ushort[] _entryOf;
    private readonly List<ushort> _batch = [];
    private ushort _freeHead;
    private PackedPosition _used;
    private PackedPosition _oldUsed;
    private ulong _counter;

    private PackedInflight(MemoryWindow window, int size)
    {
        _window = window;
        _size = size;
        _next = new ushort[size];
        _last = new ushort[size];
        _entryOf = new ushort[size];
        _batch.Capacity = size;
    }

    /// <summary>Where the device's used side stands, after recovery.</summary>
    internal PackedPosition Used => _used;

    /// <summary>Opens the record, and finds out what an earlier process held.</summary>
    /// <param name="window">The queue's region.</param>
    /// <param name="ring">The descriptor ring.</param>
    /// <param name="size">Queue size.</param>
    /// <param name="used">Where the front-end says that the used side stands; counts for a fresh region.</param>
    /// <param name="held">Chains to be submitted again, in the order in which they were taken; null when the region is
    /// fresh.</param>
    /// <exception cref="VringSetupException">The region is too small, damaged, or does not belong to this
    /// ring.</exception>
    internal static PackedInflight Open(
        MemoryWindow window, MemoryWindow ring, int size, PackedPosition used, out PackedDescriptor[][]? held)
    {
        uint bytes = PackedInflightSpec.HeaderBytes + ((uint)size * PackedInflightSpec.EntryBytes);
        bool isFresh = InflightHeader.IsFresh(window, size, bytes);
        PackedInflight inflight = new(window, size);
        if (isFresh)
        {
            inflight.Initialize(used);
            held = null;
            return inflight;
        }

        inflight.CommitOrRollBack(ring);
        inflight.ClearFreeList();
        held = inflight.CollectHeld();
        return inflight;
    }

    /// <summary>Steps P1 to P3.</summary>
    internal void Take(int slot, ReadOnlySpan<PackedDescriptor> chain)
    {
        ushort head = _freeHead;
        uint entry = Entry(head);
        _entryOf[slot] = head;
        _window.WriteRelease16(entry + PackedInflightSpec.EntryNum, 0);
        _window.WriteRelease64(entry + PackedInflightSpec.EntryCounter, _counter++);
        _window.WriteRelease8(entry + PackedInflightSpec.EntryInflight, 1);
        for (int i = 0; i < chain.Length; i++)
        {
            if (i == chain.Length - 1)
            {
                _last[head] = _freeHead;
                _window.WriteRelease16(entry + PackedInflightSpec.EntryLast, _freeHead);
            }

            _window.WriteRelease16(entry + PackedInflightSpec.EntryNum, (ushort)(i + 1));
            CopyInto(_freeHead, in chain[i]);
            _freeHead = _next[_freeHead];
            _window.WriteRelease16(PackedInflightSpec.FreeHead, _freeHead);
        }

        _window.WriteRelease16(PackedInflightSpec.OldFreeHead, _freeHead);
    }

    /// <summary>Undoes the last Take: its entries go back to the free list, then it counts as held no more.</summary>
    internal void PutBack(int slot)
    {
        ushort head = _entryOf[slot];
        ushort last = _last[head];
        _next[last] = _freeHead;
        _window.WriteRelease16(Entry(last) + PackedInflightSpec.EntryNext, _freeHead);
        _freeHead = head;
        _window.WriteRelease16(PackedInflightSpec.FreeHead, _freeHead);
        _window.WriteRelease16(PackedInflightSpec.OldFreeHead, _freeHead);
        _window.WriteRelease8(Entry(head) + PackedInflightSpec.EntryInflight, 0);
    }

    /// <summary>Notes a chain of the batch that is published next.</summary>
    internal void Return(int slot, PackedPosition usedAfter)
    {
        _batch.Add(_entryOf[slot]);
        _used = usedAfter;
    }

    /// <summary>Steps P4 and P5, before the batch is published.</summary>
    internal void Publishing()
    {
        foreach (ushort head in _batch)
        {
            ushort last = _last[head];
            _next[last] = _freeHead;
            _window.WriteRelease16(Entry(last) + PackedInflightSpec.EntryNext, _freeHead);
            _freeHead = head;
        }

        _window.WriteRelease16(PackedInflightSpec.FreeHead, _freeHead);
        WriteUsed();
    }

    /// <summary>Steps P7 to P9, after the used flags were stored.</summary>
    internal void Published()
    {
        foreach (ushort head in _batch)
        {
            _window.WriteRelease8(Entry(head) + PackedInflightSpec.EntryInflight, 0);
        }

        _batch.Clear();
        Commit();
    }

    private static uint Entry(int index) =>
        PackedInflightSpec.HeaderBytes + ((uint)index * PackedInflightSpec.EntryBytes);

    private void Commit()
    {
        _window.WriteRelease16(PackedInflightSpec.OldFreeHead, _freeHead);
        _oldUsed = _used;
        WriteUsed();
    }

    private void Initialize(PackedPosition used)
    {
        _window.Span[..(int)(PackedInflightSpec.HeaderBytes + ((uint)_size * PackedInflightSpec.EntryBytes))].Clear();
        for (int i = 0; i < _size; i++)
        {
            _next[i] = (ushort)(i + 1);
            _window.Write(Entry(i) + PackedInflightSpec.EntryNext, _next[i]);
        }

        _used = used;
        _window.WriteRelease16(PackedInflightSpec.FreeHead, _freeHead);
        Commit();
        _window.WriteRelease16(InflightSpec.DescriptorCountOffset, (ushort)_size);
        _window.WriteRelease16(InflightSpec.VersionOffset, InflightSpec.Version);
    }

    /// <summary>All four of the used side in one store.</summary>
    private void WriteUsed()
    {
        ulong wraps = (_used.Wrap ? 1UL : 0) | (_oldUsed.Wrap ? 1UL << 8 : 0);
        ulong word = _used.Index | ((ulong)_oldUsed.Index << 16) | (wraps << 32);
        if (!BitConverter.IsLittleEndian)
        {
            wraps = (_used.Wrap ? 1UL << 8 : 0) | (_oldUsed.Wrap ? 1UL : 0);
            word = ((ulong)_used.Index << 48) | ((ulong)_oldUsed.Index << 32) | (wraps << 16);
        }

        _window.WriteRelease64(PackedInflightSpec.UsedWord, word);
    }

    private void CopyInto(ushort index, in PackedDescriptor descriptor)
    {
        uint entry = Entry(index);
        _window.Write(entry + PackedInflightSpec.EntryAddress, descriptor.Address);
        _window.Write(entry + PackedInflightSpec.EntryLength, descriptor.Length);
        _window.Write(entry + PackedInflightSpec.EntryFlags, descriptor.Flags);
        _window.WriteRelease16(entry + PackedInflightSpec.EntryId, descriptor.Id);
    }

    /// <summary>The ring decides whether the last batch was published.</summary>
    private void CommitOrRollBack(MemoryWindow ring)
    {
        PackedPosition current = ReadPosition(PackedInflightSpec.UsedIndex, PackedInflightSpec.UsedWrap);
        PackedPosition old = ReadPosition(PackedInflightSpec.OldUsedIndex, PackedInflightSpec.OldUsedWrap);
        bool isPublished = current != old
            && old.WasUsed(ring.ReadAcquire16((old.Index * PackedRing.DescriptorBytes) + PackedRing.FlagsOffset));
        _used = isPublished ? current : old;
        _freeHead = _window.Read<ushort>(isPublished ? PackedInflightSpec.FreeHead : PackedInflightSpec.OldFreeHead);
        for (int i = 0; i < _size; i++)
        {
            _next[i] = _window.Read<ushort>(Entry(i) + PackedInflightSpec.EntryNext);
            _last[i] = _window.Read<ushort>(Entry(i) + PackedInflightSpec.EntryLast);
        }

        // A roll-forward does what P7 to P9 do; a roll-back puts the current values back, which nobody reads now.
        _oldUsed = old;
        _window.WriteRelease16(PackedInflightSpec.FreeHead, _freeHead);
        Commit();
    }

    private PackedPosition ReadPosition(uint indexOffset, uint wrapOffset)
    {
        ushort index = _window.Read<ushort>(indexOffset);
        return index < _size
            ? new PackedPosition(index, _window.Read<byte>(wrapOffset) != 0)
            : throw new VringSetupException("inflight", $"used_idx {index} lies outside a ring of {_size}");
    }

    private void ClearFreeList()
    {
        int index = _freeHead;
        for (int i = 0; index != _size; i++)
        {
            if (i == _size || index > _size)
            {
                throw new VringSetupException("inflight", "the free list is damaged");
            }

            _window.WriteRelease8(Entry(index) + PackedInflightSpec.EntryInflight, 0);
            index = _next[index];
        }
    }

    private PackedDescriptor[][] CollectHeld()
    {
        List<(ulong Counter, ushort Head)> heads = [];
        for (int head = 0; head < _size; head++)
        {
            if (_window.Read<byte>(Entry(head) + PackedInflightSpec.EntryInflight) == 1)
            {
                heads.Add((_window.Read<ulong>(Entry(head) + PackedInflightSpec.EntryCounter), (ushort)head));
            }
        }

        heads.Sort();
        _counter = heads.Count == 0 ? 0 : heads[^1].Counter + 1;
        int total = 0;
        PackedDescriptor[][] held = new PackedDescriptor[heads.Count][];
        for (int i = 0; i < held.Length; i++)
        {
            held[i] = ReadChain(heads[i].Head);
            total += held[i].Length;
        }

        return total <= _size ? held
            : throw new VringSetupException("inflight", $"{total} descriptors are held, of {_size}");
    }

    private PackedDescriptor[] ReadChain(ushort head)
    {
        int count = _window.Read<ushort>(Entry(head) + PackedInflightSpec.EntryNum);
        if (count == 0 || count > _size)
        {
            throw new VringSetupException("inflight", $"entry {head} has {count} descriptors, the ring {_size}");
        }

        PackedDescriptor[] chain = new PackedDescriptor[count];
        int index = head;
        for (int i = 0; i < count; i++)
        {
            if (index >= _size)
            {
                throw new VringSetupException("inflight", $"entry {head} leads to entry {index} of {_size}");
            }

            uint entry = Entry(index);
            chain[i] = new PackedDescriptor(
                _window.Read<ulong>(entry + PackedInflightSpec.EntryAddress),
                _window.Read<uint>(entry + PackedInflightSpec.EntryLength),
                _window.Read<ushort>(entry + PackedInflightSpec.EntryId),
                _window.Read<ushort>(entry + PackedInflightSpec.EntryFlags));
            _last[head] = (ushort)index;
            index = _next[index];
        }

        ushort slot = chain[^1].Id;
        if (slot >= _size)
        {
            throw new VringSetupException("inflight", $"entry {head} has buffer id {slot} of {_size}");
        }

        _entryOf[slot] = head;
        return chain;
    }
}

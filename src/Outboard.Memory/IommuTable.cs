// The translations that a front-end has told, shared by all queues of a device: one writer (the control loop), any
// number of readers (the queues' threads), no lock.
//
//   Write   W1  version + 1 (odd)        full fence     R: an odd version, or one that changed between R1 and R3,
//           W2  the entries change                         means that what R2 saw is worthless
//           W3  version + 1 (even)       full fence
//   Read    R1  version                  acquire
//           R2  search                   plain reads, whatever they give is bounds-checked
//           R3  version again            behind a full fence
//
// The table is a cache: an entry may go at any time, and the front-end is asked again. What the chain needs that a
// queue is working on is kept by that queue (IommuView), so that a chain that needs more than fits here is served.
namespace Outboard.Memory;

/// <summary>A bounded table of translations.</summary>
public sealed class IommuTable
{
    /// <summary>
    /// Translations that are remembered: twice the pages that four queues of 128 requests of four pages touch, and
    /// 160 KiB. A front-end that sends more makes the table forget others.
    /// </summary>
    public const int MaxEntries = 4096;

    private readonly IovaMap _map = new();
    private int _version;
    private int _victim;

    /// <summary>Translations in the table. For the writer and for tests.</summary>
    public int Count => _map.Count;

    /// <summary>Adds a translation in the place of whatever overlaps it. By the writer only.</summary>
    public void Add(in IommuEntry entry)
    {
        BeginWrite();
        _map.Add(entry);
        while (_map.Count > MaxEntries)
        {
            Evict(entry.Start);
        }

        EndWrite();
    }

    /// <summary>Forgets a range. By the writer only.</summary>
    public void Remove(ulong start, ulong last)
    {
        BeginWrite();
        _map.Remove(start, last);
        while (_map.Count > MaxEntries)
        {
            Evict(start);
        }

        EndWrite();
    }

    /// <summary>Forgets everything. By the writer only.</summary>
    public void Clear() => Remove(0, ulong.MaxValue);

    /// <summary>Finds the translation of an address. From any thread.</summary>
    public bool TryFind(ulong iova, out IommuEntry entry)
    {
        SpinWait spin = default;
        while (true)
        {
            int before = Volatile.Read(ref _version);
            if ((before & 1) == 0)
            {
                bool found = _map.TryFind(iova, out entry);
                Interlocked.MemoryBarrier();
                if (Volatile.Read(ref _version) == before)
                {
                    return found;
                }
            }

            spin.SpinOnce(sleep1Threshold: -1);
        }
    }

    private void BeginWrite() => Interlocked.Increment(ref _version);

    private void EndWrite() => Interlocked.Increment(ref _version);

    /// <summary>Forgets the next entry in turn, but not the one that was just added.</summary>
    private void Evict(ulong keptStart)
    {
        _victim = (_victim + 1) % _map.Count;
        int index = _map.Entries[_victim].Start == keptStart ? (_victim + 1) % _map.Count : _victim;
        _map.RemoveAt(index);
    }
}

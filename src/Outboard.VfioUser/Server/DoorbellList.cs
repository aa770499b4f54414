// What DEVICE_GET_REGION_IO_FDS tells: doorbells, and descriptors that several of them may share, as many as a client
// takes in one message. What finds no room is rung by messages; the first ones are the busiest.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>The doorbells of a region as one client gets them.</summary>
internal sealed class DoorbellList
{
    private readonly List<(PciDoorbell Doorbell, uint Event, uint Memory)> _entries = [];
    private readonly List<(object Owner, FileDescriptor Descriptor)> _descriptors = [];
    private readonly int _most;

    /// <param name="doorbells">What there is.</param>
    /// <param name="most">Descriptors that the client takes.</param>
    /// <param name="offersShadows">Whether those with a value are among them.</param>
    internal DoorbellList(IEnumerable<PciDoorbell> doorbells, int most, bool offersShadows)
    {
        _most = most;
        foreach (PciDoorbell doorbell in doorbells)
        {
            int before = _descriptors.Count;
            if (doorbell.Shadow is null || offersShadows)
            {
                int line = IndexOf(doorbell.Event, doorbell.Event.Descriptor);
                int memory = doorbell.Shadow is { } shadow ? IndexOf(shadow.Object, shadow.Object.Descriptor) : 0;
                if (line >= 0 && memory >= 0)
                {
                    _entries.Add((doorbell, (uint)line, (uint)memory));
                    continue;
                }
            }

            _descriptors.RemoveRange(before, _descriptors.Count - before);
        }
    }

    /// <summary>Doorbells.</summary>
    internal int Count => _entries.Count;

    /// <summary>Descriptors in the order of their indices; they stay their owners'.</summary>
    internal IEnumerable<FileDescriptor> Descriptors => _descriptors.Select(known => known.Descriptor);

    /// <summary>Writes an entry of 40 bytes as specified, or of 48.</summary>
    internal void Write(int index, Span<byte> target)
    {
        (PciDoorbell doorbell, uint line, uint memory) = _entries[index];
        ulong match = doorbell.Match ?? 0;
        bool isWide = target.Length == IoEventFdEntry.WideBytes;
        MemoryMarshal.Write(target, new IoEventFdEntry(
            doorbell.Offset, doorbell.SizeBytes, line,
            doorbell.Shadow is null ? IoEventFdEntry.Plain : IoEventFdEntry.Shadow,
            doorbell.Match is null ? 0 : IoEventFdEntry.MatchesData, memory,
            doorbell.Shadow?.Offset ?? (isWide ? 0 : match)));
        if (isWide)
        {
            MemoryMarshal.Write(target[IoEventFdEntry.Bytes..], match);
        }
    }

    private int IndexOf(object owner, FileDescriptor descriptor)
    {
        int known = _descriptors.FindIndex(other => ReferenceEquals(other.Owner, owner));
        if (known >= 0 || _descriptors.Count >= _most)
        {
            return known;
        }

        _descriptors.Add((owner, descriptor));
        return _descriptors.Count - 1;
    }
}

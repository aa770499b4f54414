// The two places of lists: mapped memory, and what was fetched by messages.
using Outboard.Memory;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>Lists in mapped memory.</summary>
internal sealed class MappedLists : GuestLists
{
    internal GuestMemory Memory { get; set; } = GuestMemory.Empty;

    internal override bool TryRead(ulong address, Span<byte> destination)
    {
        if (!Memory.TryGetWindow(address, (ulong)destination.Length, out MemoryWindow window))
        {
            return false;
        }

        window.Span.CopyTo(destination);
        return true;
    }
}

/// <summary>Lists that were fetched one after another; the first that is missing is <see cref="Wanted"/>.</summary>
internal sealed class FetchedLists : GuestLists
{
    private readonly List<byte[]> _pieces = [];
    private int _next;

    /// <summary>What was asked for and is missing.</summary>
    internal DmaRange Wanted { get; private set; }

    internal override bool TryRead(ulong address, Span<byte> destination)
    {
        if (_next == _pieces.Count)
        {
            Wanted = new DmaRange(address, (uint)destination.Length);
            return false;
        }

        // The pieces before this one were the same the last time, so this one is, too.
        _pieces[_next++].CopyTo(destination);
        return true;
    }

    internal void Add(byte[] piece) => _pieces.Add(piece);

    /// <summary>Begins again with the first piece.</summary>
    internal void Rewind() => _next = 0;
}

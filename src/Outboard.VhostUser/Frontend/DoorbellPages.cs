// Pages that the back-end offered as doorbells: a write of the queue's index there is a kick.
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.VhostUser.Frontend;

/// <summary>The doorbell pages of a device, by queue. From any thread.</summary>
internal sealed class DoorbellPages : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, MemoryMapping> _pages = [];
    private volatile bool _hasAny;

    /// <summary>Uses a page for a queue from now on, or none.</summary>
    internal void Set(int queue, MemoryMapping? page)
    {
        lock (_lock)
        {
            if (_pages.Remove(queue, out MemoryMapping? before))
            {
                before.Dispose();
            }

            if (page is not null)
            {
                _pages.Add(queue, page);
            }

            _hasAny = _pages.Count > 0;
        }
    }

    /// <summary>Kicks by the queue's page.</summary>
    /// <returns>False when it has none.</returns>
    internal bool TryRing(int queue)
    {
        if (!_hasAny)
        {
            return false;
        }

        lock (_lock)
        {
            if (!_pages.TryGetValue(queue, out MemoryMapping? page))
            {
                return false;
            }

            MemoryWindow.Of(page).WriteRelease16(0, (ushort)queue);
            return true;
        }
    }

    /// <summary>Lets go of all pages.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (MemoryMapping page in _pages.Values)
            {
                page.Dispose();
            }

            _pages.Clear();
            _hasAny = false;
        }
    }
}

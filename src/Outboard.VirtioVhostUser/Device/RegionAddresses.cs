// The shared memory regions of a device as ranges of addresses of this process: what a transport has that maps them
// for nobody but itself, or answers accesses to them by messages.
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>The regions of a device as ranges of addresses. Disposed when nobody uses them any more.</summary>
internal sealed class RegionAddresses : SharedRegionHost, IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<byte, AddressWindow> _windows;
    private readonly SharedRegionMap _map;
    private bool _isDisposed;

    internal RegionAddresses(VirtioDevice device)
    {
        _windows = device.SharedRegions.ToDictionary(
            region => region.Id, region => new AddressWindow(region.SizeBytes));
        _map = new SharedRegionMap(device.SharedRegions);
    }

    /// <summary>The range of a region; null for one that is not there.</summary>
    internal AddressWindow? this[byte region] => _windows.GetValueOrDefault(region);

    public override Task<bool> MapAsync(
        SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
    {
        lock (_lock)
        {
            if (_isDisposed || memory is not FileSharedMemory file || _map.TryAdd(part) is not null)
            {
                return Task.FromResult(false);
            }

            try
            {
                _windows[part.Region].Place(part.Offset, file.Descriptor, memoryOffset, part.Length, writable);
                return Task.FromResult(true);
            }
            catch (IOException)
            {
                _map.TryRemove(part);
                return Task.FromResult(false);
            }
        }
    }

    public override Task<bool> UnmapAsync(SharedRegionPart part)
    {
        lock (_lock)
        {
            bool isMapped = !_isDisposed && _map.TryRemove(part);
            if (isMapped)
            {
                _windows[part.Region].Clear(part.Offset, part.Length);
            }

            return Task.FromResult(isMapped);
        }
    }

    public override Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset) =>
        Task.FromResult(false);

    /// <summary>A session that is ending may still ask for something: it is refused from now on.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _isDisposed = true;
            foreach (AddressWindow window in _windows.Values)
            {
                window.Dispose();
            }
        }
    }

    /// <summary>Unmaps everything: the device was reset.</summary>
    internal void ClearAll()
    {
        lock (_lock)
        {
            _map.Clear();
            foreach (AddressWindow window in _windows.Values)
            {
                window.Clear(0, window.SizeBytes);
            }
        }
    }
}

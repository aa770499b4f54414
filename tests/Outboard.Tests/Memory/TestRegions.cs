// Regions of guest memory over one memfd: any guest address, any size, any offset in the file.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Tests.Memory;

internal sealed class TestRegions : IDisposable
{
    private readonly FileDescriptor _file;
    private readonly List<MemoryRegion> _regions = [];

    internal TestRegions(ulong fileBytes = 1 << 20) => _file = MemFd.Create("test-regions", fileBytes);

    internal IReadOnlyList<MemoryRegion> Regions => _regions;

    internal GuestMemory Memory => GuestMemory.Create(_regions);

    internal MemoryRegion Add(ulong guestAddress, ulong sizeBytes, ulong fileOffset = 0, ulong? userAddress = null)
    {
        MemoryMapping mapping = MemoryMapping.Map(_file, fileOffset, sizeBytes);
        try
        {
            MemoryRegion region = new(guestAddress, userAddress ?? guestAddress, mapping);
            _regions.Add(region);
            return region;
        }
        catch
        {
            mapping.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach (MemoryRegion region in _regions)
        {
            region.Dispose();
        }

        _file.Dispose();
    }
}

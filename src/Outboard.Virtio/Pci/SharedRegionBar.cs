// The device's shared memory regions as a BAR, one behind the other: virtio-v1.3 "4.1.4.7 Shared memory capability".
//
// A client maps a BAR once, and never looks again. So only a region that is a file's memory for good can be mapped by
// clients (SharedRegion.Memory). What a device maps while it runs is reached by accesses, which are answered from the
// parts that are mapped then; between them there are zeroes. Not here: doorbell pages.
using System.Numerics;
using Outboard.Memory;
using Outboard.Pci.Bars;

namespace Outboard.Virtio.Pci;

/// <summary>Shows regions in a BAR. From any thread.</summary>
internal sealed class SharedRegionBar : SharedRegionHost, IDisposable
{
    /// <summary>The BAR's index; being a large one it takes the next one, too.</summary>
    internal const int Index = 2;

    private readonly Place[] _places;
    private readonly SharedRegionMemory _files;
    private readonly SharedRegionMemory _mapped;

    /// <exception cref="ArgumentException">A region cannot be shown.</exception>
    internal SharedRegionBar(IReadOnlyList<SharedRegion> regions)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        ulong end = 0;
        _places = new Place[regions.Count];
        for (int i = 0; i < regions.Count; i++)
        {
            SharedRegion region = regions[i];
            if (region.SizeBytes == 0 || (region.SizeBytes | region.MemoryOffset) % page != 0
                || region.SizeBytes > (1UL << 62) - end)
            {
                throw new ArgumentException($"region {region.Id} of 0x{region.SizeBytes:x} bytes is not whole pages");
            }

            _places[i] = new Place(region, end);
            end += region.SizeBytes;
        }

        _files = new SharedRegionMemory(regions);
        _mapped = new SharedRegionMemory(regions);
        MapFiles();
        BarArea[] areas = [.. FindAreas(out BarFile? file)];
        Bar = new PciBar(Index, PciBarKind.Memory64, BitOperations.RoundUpToPowerOf2(end), isPrefetchable: true)
        {
            File = file,
            MappableAreas = areas,
        };
    }

    /// <summary>The BAR.</summary>
    internal PciBar Bar { get; }

    /// <summary>Where a driver finds the regions.</summary>
    internal IEnumerable<VirtioPciCapability> Capabilities => _places.Select(place =>
        VirtioPciCapability.SharedMemory(Index, place.Region.Id, place.Offset, place.Region.SizeBytes));

    public override Task<bool> MapAsync(
        SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable) =>
        Task.FromResult(!IsFile(part.Region) && _mapped.TryMap(part, memory, memoryOffset, writable));

    public override Task<bool> UnmapAsync(SharedRegionPart part) =>
        Task.FromResult(!IsFile(part.Region) && _mapped.TryUnmap(part));

    public override Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset) =>
        Task.FromException<bool>(new IOException("a PCI function has no place for doorbell pages"));

    public void Dispose()
    {
        _files.Dispose();
        _mapped.Dispose();
    }

    /// <summary>The device was reset: what it mapped is gone.</summary>
    internal void Forget() => _mapped.Clear();

    /// <summary>Answers an access, which may cover several regions.</summary>
    internal void Read(ulong offset, Span<byte> destination)
    {
        destination.Clear();
        foreach (Place place in _places)
        {
            if (place.TryMeet(offset, destination.Length, out int at, out ulong from, out int length))
            {
                MemoryOf(place).Read(place.Region.Id, from, destination.Slice(at, length));
            }
        }
    }

    /// <summary>Carries out an access, which may cover several regions.</summary>
    internal void Write(ulong offset, ReadOnlySpan<byte> source)
    {
        foreach (Place place in _places)
        {
            if (place.TryMeet(offset, source.Length, out int at, out ulong from, out int length))
            {
                MemoryOf(place).Write(place.Region.Id, from, source.Slice(at, length));
            }
        }
    }

    private SharedRegionMemory MemoryOf(Place place) => place.Region.Memory is null ? _mapped : _files;

    private bool IsFile(byte region) =>
        Array.Exists(_places, place => place.Region.Id == region && place.Region.Memory is not null);

    private void MapFiles()
    {
        foreach (SharedRegion region in _places.Select(place => place.Region))
        {
            SharedRegionPart whole = new(region.Id, 0, region.SizeBytes);
            if (region.Memory is { } file && !_files.TryMap(whole, file, region.MemoryOffset, writable: true))
            {
                throw new ArgumentException(
                    $"region {region.Id}: its file has no 0x{region.SizeBytes:x} bytes at 0x{region.MemoryOffset:x}");
            }
        }
    }

    /// <summary>
    /// A BAR has one descriptor, in which it lies as a whole: regions that lie otherwise, or in another file, are not
    /// mapped by clients.
    /// </summary>
    private List<BarArea> FindAreas(out BarFile? file)
    {
        file = null;
        List<BarArea> areas = [];
        foreach (Place place in _places)
        {
            if (place.Region.Memory is not { } memory || place.Region.MemoryOffset < place.Offset)
            {
                continue;
            }

            BarFile own = new(memory, place.Region.MemoryOffset - place.Offset);
            file ??= own;
            if (own.Offset != file.Offset || memory.Identity != file.Object.Identity)
            {
                continue;
            }

            if (areas.Count > 0 && areas[^1].Offset + areas[^1].SizeBytes == place.Offset)
            {
                areas[^1] = areas[^1] with { SizeBytes = areas[^1].SizeBytes + place.Region.SizeBytes };
            }
            else
            {
                areas.Add(new BarArea(place.Offset, place.Region.SizeBytes));
            }
        }

        return areas;
    }

    /// <summary>A region, and where it begins in the BAR.</summary>
    private readonly record struct Place(SharedRegion Region, ulong Offset)
    {
        internal bool TryMeet(ulong offset, int count, out int at, out ulong from, out int length)
        {
            ulong first = Math.Max(Offset, offset);
            ulong end = Math.Min(Offset + Region.SizeBytes, offset + (ulong)count);
            bool meets = first < end;
            at = meets ? (int)(first - offset) : 0;
            from = meets ? first - Offset : 0;
            length = meets ? (int)(end - first) : 0;
            return meets;
        }
    }
}

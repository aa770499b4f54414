// Translating guest addresses: always in the region of the last hit, or in a random one.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Translates one buffer of 512 bytes at a time.</summary>
public sealed class TranslationBody : BenchmarkBody
{
    private const ulong RegionBytes = 64 << 10;
    private const uint BufferBytes = 512;

    private readonly MemoryRegion[] _regions;
    private readonly GuestMemory _memory;
    private readonly SegmentTable _segments = new(1);
    private readonly ulong[] _addresses = new ulong[Operations];

    /// <summary>Maps the regions, with a gap between each two.</summary>
    public TranslationBody(int regions)
    {
        using FileDescriptor file = MemFd.Create("outboard-benchmark", (ulong)regions * RegionBytes);
        _regions = new MemoryRegion[regions];
        for (int i = 0; i < regions; i++)
        {
            MemoryMapping mapping = MemoryMapping.Map(file, (ulong)i * RegionBytes, RegionBytes);
            _regions[i] = new MemoryRegion((ulong)(i + 1) * RegionBytes * 2, 0, mapping);
        }

        _memory = GuestMemory.Create(_regions);
        Random random = new(regions);
        for (int i = 0; i < _addresses.Length; i++)
        {
            ulong start = _regions[random.Next(regions)].GuestAddress;
            _addresses[i] = start + (ulong)random.Next((int)(RegionBytes - BufferBytes));
        }
    }

    /// <inheritdoc/>
    public override void Run()
    {
        int hint = 0;
        foreach (ulong address in _addresses)
        {
            int count = 0;
            if (!_memory.TryAppend(address, BufferBytes, _segments, 0, ref count, ref hint))
            {
                throw new InvalidOperationException($"address 0x{address:x} is in a region");
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _segments.Dispose();
        Array.ForEach(_regions, region => region.Dispose());
        base.Dispose();
    }
}

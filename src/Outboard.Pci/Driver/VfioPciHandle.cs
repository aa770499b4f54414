// A PCI function that the kernel hands to this process: the driver's side of waist 2 over VFIO.
// Not here: doorbells by eventfd; a write to a mapped page costs less.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Vfio;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Interrupts;

namespace Outboard.Pci.Driver;

/// <summary>A PCI function over VFIO. Disposing gives it back to the kernel.</summary>
public sealed class VfioPciHandle : PciHandle, IDisposable
{
    private readonly VfioDevice _device;
    private readonly Lock _lock = new();
    private readonly Dictionary<InterruptKind, EventFd?[]> _bound = [];
    private readonly MemoryMapping?[] _mapped = new MemoryMapping?[PciBar.Count];

    private VfioPciHandle(VfioDevice device) => _device = device;

    /// <summary>Takes hold of a function.</summary>
    /// <param name="address">Its address as the kernel writes it: 0000:00:03.0.</param>
    /// <exception cref="IOException">It cannot be had.</exception>
    public static VfioPciHandle Open(string address) => new(VfioDevice.Open(address));

    /// <inheritdoc/>
    public override Task ReadAsync(
        int region, ulong offset, Memory<byte> destination, CancellationToken cancellation)
    {
        _device.Read(region, offset, destination.Span);
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public override Task WriteAsync(
        int region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation)
    {
        _device.Write(region, offset, source.Span);
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public override void Post(int region, ulong offset, ReadOnlySpan<byte> source)
    {
        if (source.Length == sizeof(ushort) && offset <= uint.MaxValue && MappingOf(region) is { } mapping
            && offset + sizeof(ushort) <= mapping.Length)
        {
            MemoryWindow.Of(mapping).WriteRelease16((uint)offset, BitConverter.ToUInt16(source));
            return;
        }

        try
        {
            _device.Write(region, offset, source);
        }
        catch (IOException)
        {
            // Whoever posts does not want to hear of it.
        }
    }

    /// <inheritdoc/>
    public override Task BindAsync(
        InterruptKind kind, int start, IReadOnlyList<EventFd>? events, CancellationToken cancellation)
    {
        lock (_lock)
        {
            EventFd?[] before = _bound.GetValueOrDefault(kind, []);
            int count = events is null ? 0 : Math.Max(before.Length, start + events.Count);
            EventFd?[] after = new EventFd?[count];
            before.AsSpan(0, Math.Min(before.Length, count)).CopyTo(after);
            for (int i = 0; i < (events?.Count ?? 0); i++)
            {
                after[start + i] = new EventFd(events![i].Descriptor.Duplicate());
            }

            // Not every kernel can have more vectors, or others, without giving all of them up first.
            if (before.Length > 0)
            {
                _device.BindVectors((int)kind, []);
            }

            if (count > 0)
            {
                _device.BindVectors((int)kind, after);
            }

            _bound[kind] = after;
            foreach (EventFd? gone in before.Except(after))
            {
                gone?.Dispose();
            }
        }

        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public override Task<int> CountVectorsAsync(InterruptKind kind, CancellationToken cancellation) =>
        Task.FromResult(_device.CountVectors((int)kind));

    /// <summary>Not how memory is given here: see <see cref="MapPhysical"/>.</summary>
    public override Task MapAsync(
        ulong guestAddress, FileSharedMemory memory, ulong offset, ulong sizeBytes, CancellationToken cancellation) =>
        Task.FromException(new IOException("a device over VFIO is given memory by its place in this process"));

    /// <summary>
    /// Lets the function reach memory of this process: at the address where it physically lies, which is right whether
    /// an IOMMU translates for the function, or it goes past one, or there is none.
    /// </summary>
    public void MapPhysical(ulong address, IoSegment memory) => _device.MapDma(address, memory);

    /// <inheritdoc/>
    public override Task UnmapAsync(ulong guestAddress, ulong sizeBytes, CancellationToken cancellation)
    {
        _device.UnmapDma(guestAddress, sizeBytes);
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public override Task<IReadOnlyList<PciDoorbell>> OpenDoorbellsAsync(int bar, CancellationToken cancellation) =>
        Task.FromResult<IReadOnlyList<PciDoorbell>>([]);

    /// <inheritdoc/>
    public override SharedMemory OpenWindow(int bar, ulong offset, ulong sizeBytes)
    {
        VfioRegion region = _device.Region(bar);
        return region.IsMappable && offset <= region.SizeBytes && sizeBytes <= region.SizeBytes - offset
            ? new BarWindow(_device, bar, offset, sizeBytes)
            : base.OpenWindow(bar, offset, sizeBytes);
    }

    /// <inheritdoc/>
    public override Task ResetAsync(CancellationToken cancellation)
    {
        _device.Reset();
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (EventFd? bound in _bound.Values.SelectMany(events => events))
            {
                bound?.Dispose();
            }

            foreach (MemoryMapping? mapping in _mapped)
            {
                mapping?.Dispose();
            }

            Array.Clear(_mapped);
            _bound.Clear();
        }

        _device.Dispose();
    }

    /// <summary>A BAR's registers, mapped at the first use; null when they cannot be.</summary>
    private MemoryMapping? MappingOf(int bar)
    {
        if ((uint)bar >= PciBar.Count)
        {
            return null;
        }

        if (Volatile.Read(ref _mapped[bar]) is { } known)
        {
            return known;
        }

        lock (_lock)
        {
            VfioRegion info = _device.Region(bar);
            if (_mapped[bar] is null && info.IsMappable && info.SizeBytes <= uint.MaxValue)
            {
                Volatile.Write(ref _mapped[bar], _device.Map(bar, 0, info.SizeBytes));
            }

            return _mapped[bar];
        }
    }

    private sealed class BarWindow(VfioDevice device, int bar, ulong start, ulong sizeBytes) : SharedMemory
    {
        public override ulong SizeBytes => sizeBytes;

        public override FileIdentity Identity => device.Identity;

        public override MemoryMapping Map(ulong offset, ulong length, bool writable = true) =>
            offset <= sizeBytes && length <= sizeBytes - offset
                ? device.Map(bar, start + offset, length, writable)
                : throw new IOException($"{length} bytes at {offset} leave a window of {sizeBytes}");

        public override void Dispose()
        {
        }
    }
}

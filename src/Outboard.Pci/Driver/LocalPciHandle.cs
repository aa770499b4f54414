// A PCI function of this process, driven without any transport between: it does what a transport does, one call at a
// time, and memory and interrupts are passed on as they are. For tests, and for a driver and a device that are to meet
// inside one program.
// Not here: logs of written pages, migration.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Dma;
using Outboard.Pci.Interrupts;

namespace Outboard.Pci.Driver;

/// <summary>A PCI function of this process. Disposing detaches from it; the function stays its maker's.</summary>
#pragma warning disable CA1001 // A semaphore that nobody takes a wait handle of holds nothing.
public sealed class LocalPciHandle : PciHandle, IAsyncDisposable
{
    private readonly PciFunction _function;
    private readonly SemaphoreSlim _turn = new(1);
    private readonly LocalDmaSpace _dma = new();
    private bool _isDetached;

    /// <summary>Takes hold of a function that nobody else is attached to.</summary>
    public LocalPciHandle(PciFunction function)
    {
        ArgumentNullException.ThrowIfNull(function);
        _function = function;
        function.Attach(_dma);
    }

    /// <inheritdoc/>
    public override Task ReadAsync(
        int region, ulong offset, Memory<byte> destination, CancellationToken cancellation) =>
        InTurnAsync(
            () =>
            {
                if (region == Config)
                {
                    Require(offset, destination.Length, (ulong)_function.Config.SizeBytes, region);
                    _function.ReadConfig((uint)offset, destination.Span);
                }
                else
                {
                    _function.ReadBarAt(BarAt(region, offset, destination.Length), offset, destination.Span);
                }

                return default;
            },
            cancellation);

    /// <inheritdoc/>
    public override Task WriteAsync(
        int region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation) =>
        InTurnAsync(
            () =>
            {
                if (region == Config)
                {
                    Require(offset, source.Length, (ulong)_function.Config.SizeBytes, region);
                    return _function.WriteConfigAsync((uint)offset, source);
                }

                return _function.WriteBarAtAsync(BarAt(region, offset, source.Length), offset, source);
            },
            cancellation);

    /// <inheritdoc/>
    public override void Post(int region, ulong offset, ReadOnlySpan<byte> source)
    {
        if ((uint)region < PciBar.Count && _function.Bars[region] is { } bar)
        {
            foreach (PciDoorbell doorbell in bar.Doorbells)
            {
                if (doorbell.IsRungBy(offset, source))
                {
                    doorbell.Event.Signal();
                    return;
                }
            }
        }

        _ = PostAsync(region, offset, source.ToArray());
    }

    /// <inheritdoc/>
    public override Task BindAsync(
        InterruptKind kind, int start, IReadOnlyList<EventFd>? events, CancellationToken cancellation) =>
        InTurnAsync(
            () =>
            {
                InterruptVectors vectors = _function.Interrupts[kind];
                if (events is not null)
                {
                    Require((ulong)start, events.Count, (ulong)vectors.Count, (int)kind);
                }

                for (int i = 0; i < (events?.Count ?? vectors.Count); i++)
                {
                    vectors.Bind(
                        events is null ? i : start + i,
                        events is null ? null : new EventLine(new EventFd(events[i].Descriptor.Duplicate())));
                }

                return _function.ChangeInterruptsAsync();
            },
            cancellation);

    /// <inheritdoc/>
    public override Task<int> CountVectorsAsync(InterruptKind kind, CancellationToken cancellation) =>
        Task.FromResult(_function.Interrupts[kind].Count);

    /// <inheritdoc/>
    public override Task MapAsync(
        ulong guestAddress, FileSharedMemory memory, ulong offset, ulong sizeBytes, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(memory);
        return InTurnAsync(
            () =>
            {
                _dma.Add(new MemoryRegion(guestAddress, 0, memory.Map(offset, sizeBytes)));
                return _function.ChangeMemoryAsync(keepsOldRegions: true);
            },
            cancellation);
    }

    /// <inheritdoc/>
    public override Task UnmapAsync(ulong guestAddress, ulong sizeBytes, CancellationToken cancellation) =>
        InTurnAsync(() => UnmapAsync(guestAddress, sizeBytes), cancellation);

    /// <inheritdoc/>
    public override Task<IReadOnlyList<PciDoorbell>> OpenDoorbellsAsync(int bar, CancellationToken cancellation) =>
        Task.FromResult<IReadOnlyList<PciDoorbell>>([.. (_function.Bars[bar]?.Doorbells ?? [])
            .Select(doorbell => doorbell with { Event = new EventFd(doorbell.Event.Descriptor.Duplicate()) })]);

    /// <inheritdoc/>
    public override SharedMemory OpenWindow(int bar, ulong offset, ulong sizeBytes) =>
        (uint)bar < PciBar.Count && _function.Bars[bar]?.Window is { } window
            && offset <= window.SizeBytes && sizeBytes <= window.SizeBytes - offset
            ? new AddressWindowView(window, offset, sizeBytes)
            : base.OpenWindow(bar, offset, sizeBytes);

    /// <inheritdoc/>
    public override Task ResetAsync(CancellationToken cancellation) =>
        InTurnAsync(() => _function.ResetAsync(PciResetKind.Device), cancellation);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        bool isFirst = !_isDetached;
        _isDetached = true;
        _turn.Release();
        if (isFirst)
        {
            await _function.DetachAsync().ConfigureAwait(false);
            _dma.Dispose();
        }
    }

    private static void Require(ulong offset, int count, ulong size, int region)
    {
        if (offset > size || (ulong)count > size - offset)
        {
            throw new IOException($"{count} at {offset} leave region {region} of {size}");
        }
    }

    private PciBar BarAt(int region, ulong offset, int count)
    {
        PciBar bar = ((uint)region < PciBar.Count ? _function.Bars[region] : null)
            ?? throw new IOException($"there is no BAR {region}");
        Require(offset, count, bar.SizeBytes, region);
        return bar;
    }

    private async Task InTurnAsync(Func<ValueTask> action, CancellationToken cancellation)
    {
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_isDetached)
            {
                throw new IOException("nobody is attached to the function any more");
            }

            await action().ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }
    }

    private async Task PostAsync(int region, ulong offset, byte[] source)
    {
        try
        {
            await WriteAsync(region, offset, source, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or ObjectDisposedException)
        {
            // Whoever posts does not want to hear of it.
        }
    }

    private async ValueTask UnmapAsync(ulong guestAddress, ulong sizeBytes)
    {
        MemoryRegion gone = _dma.Remove(guestAddress, sizeBytes)
            ?? throw new IOException($"0x{sizeBytes:x} bytes at 0x{guestAddress:x} were not mapped");
        await _function.ChangeMemoryAsync(keepsOldRegions: false).ConfigureAwait(false);
        gone.Dispose();
    }

    /// <summary>What was mapped. Changed in turns; the snapshot may be read by anyone.</summary>
    private sealed class LocalDmaSpace : DmaSpace, IDisposable
    {
        private volatile GuestMemory _memory = GuestMemory.Empty;

        public override GuestMemory Memory => _memory;

        public override int WindowCount => _memory.Regions.Length;

        public override ValueTask ReadAsync(
            ulong address, Memory<byte> destination, DmaRoute route, CancellationToken cancellation)
        {
            if (!_memory.TryGetWindow(address, (ulong)destination.Length, out MemoryWindow window))
            {
                return ValueTask.FromException(new DmaException(Errno.NoEntry, address));
            }

            window.Span.CopyTo(destination.Span);
            return default;
        }

        public override ValueTask WriteAsync(
            ulong address, ReadOnlyMemory<byte> source, DmaRoute route, CancellationToken cancellation)
        {
            if (!_memory.TryGetWindow(address, (ulong)source.Length, out MemoryWindow window))
            {
                return ValueTask.FromException(new DmaException(Errno.NoEntry, address));
            }

            source.Span.CopyTo(window.Span);
            return default;
        }

        public void Dispose()
        {
            foreach (MemoryRegion region in _memory.Regions)
            {
                region.Dispose();
            }
        }

        internal void Add(MemoryRegion region)
        {
            try
            {
                _memory = _memory.Add(region);
            }
            catch (GuestMemoryException error)
            {
                region.Dispose();
                throw new IOException(error.Message, error);
            }
        }

        internal MemoryRegion? Remove(ulong guestAddress, ulong sizeBytes)
        {
            MemoryRegion? gone = _memory.Regions.FirstOrDefault(
                region => region.GuestAddress == guestAddress && region.SizeBytes == sizeBytes);
            _memory = gone is null ? _memory : _memory.Remove(gone);
            return gone;
        }
    }
}

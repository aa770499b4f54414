// Queues: started when a driver enables them, suspended while their rings are not in guest memory, stopped by a reset.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci;

public sealed partial class VirtioPciFunction
{
    /// <inheritdoc/>
    protected override async ValueTask OnMemoryChangedAsync(GuestMemory memory, bool keepsOldRegions)
    {
        foreach (PciQueue queue in _queues)
        {
            if (!keepsOldRegions && queue.Running is not null && !queue.IsIn(memory, IsPacked))
            {
                await StopAsync(queue).ConfigureAwait(false);
            }
        }

        await _host.ChangeMemoryAsync(memory, keepsOldRegions).ConfigureAwait(false);
        foreach (PciQueue queue in _queues)
        {
            if (!_isHalted && queue.Running is null && queue.IsEnabled && queue.IsIn(memory, IsPacked))
            {
                await StartAsync(queue, memory).ConfigureAwait(false);
            }
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask OnDetachedAsync()
    {
        foreach (PciQueue queue in _queues)
        {
            await StopAsync(queue).ConfigureAwait(false);
        }

        _migration?.Abandon();
    }

    private async ValueTask EnableQueueAsync(PciQueue queue)
    {
        queue.IsEnabled = true;
        GuestMemory memory = Dma.Memory;
        if (_isHalted)
        {
            return;
        }

        if (queue.IsIn(memory, IsPacked))
        {
            await StartAsync(queue, memory).ConfigureAwait(false);
            return;
        }

        _log.LogWarning(
            "queue {Queue}: its rings are not in shared memory: start QEMU with memory-backend-memfd,share=on",
            queue.Index);
    }

    private async ValueTask StartAsync(PciQueue queue, GuestMemory memory)
    {
        VringSetup setup = new()
        {
            Index = queue.Index,
            Size = queue.Size,
            Addresses = queue.Addresses,
            Base = queue.Base ?? (IsPacked ? PackedPosition.StartOfBoth : 0),
            Features = _driverFeatures,
            Memory = memory,
            Log = LogOf(queue),
        };
        QueueLinks links = new()
        {
            Kick = new EventFdNotifier(new EventFd(queue.Doorbell.Descriptor.Duplicate())),
            Call = new QueueInterrupt(this, queue),
            IsStarted = true,
            IsEnabled = Status.HasFlag(VirtioStatus.DriverOk),
            Faulted = OnFaulted,
            Failed = OnFailed,
        };
        try
        {
            queue.Running = await _host.StartQueueAsync(setup, links).ConfigureAwait(false);
        }
        catch (VringSetupException error)
        {
            links.Kick.Dispose();
            _log.LogWarning("queue {Queue}: {Field}: {Reason}", queue.Index, error.Field, error.Message);
            NeedReset();
        }
    }

    /// <summary>Stops a queue if it runs, and notes where it stands.</summary>
    private static async ValueTask StopAsync(PciQueue queue)
    {
        if (queue.Running is { } running)
        {
            queue.Running = null;
            queue.Base = await running.StopAsync().ConfigureAwait(false);
        }
    }

    private async ValueTask EnableRunningAsync()
    {
        foreach (PciQueue queue in _queues)
        {
            if (queue.Running is { } running)
            {
                await running.EnableAsync().ConfigureAwait(false);
            }
        }
    }

    private static async ValueTask ResetQueueAsync(PciQueue queue)
    {
        await StopAsync(queue).ConfigureAwait(false);
        queue.Reset();
    }

    private async ValueTask ResetDeviceAsync()
    {
        foreach (PciQueue queue in _queues)
        {
            await ResetQueueAsync(queue).ConfigureAwait(false);
        }

        await _host.ResetAsync().ConfigureAwait(false);
        _shared?.Forget();
        _auxiliary?.Reset();
        _driverFeatures = 0;
        _deviceFeatureSelect = _driverFeatureSelect = 0;
        _queueSelect = 0;
        _configVector = VirtioPci.NoVector;
        Interlocked.Exchange(ref _status, 0);
        Interlocked.Exchange(ref _isr, 0);
        UpdatePin();
    }
}

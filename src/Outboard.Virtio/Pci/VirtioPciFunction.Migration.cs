// How a virtio function moves: its registers, where its queues stand, and the device's own state (FramedMigration):
//
//   offer   0 device type u16, 2 queues u16, 4 configuration space bytes u32, 8 features u64
//   state   a device's state (State/DeviceStateFormat), whose records are named in VirtioPciState
//
// A function that is stopped holds nothing: its queues have drained. What it wrote to guest memory until then is in the
// log of dirty pages, which its queues mark (DirtyLog); the client copies those pages.
// At the destination each queue interrupts once when it goes on, since nobody knows which interrupts were on their way.
using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Virtio.Pci;

public sealed partial class VirtioPciFunction
{
    private readonly VirtioPciMigration? _migration;
    private DirtyLog? _dirtyLog;
    private volatile bool _isHalted;
    private volatile bool _owesConfigChange;

    /// <inheritdoc/>
    public override PciMigration? Migration => _migration;

    /// <inheritdoc/>
    public override bool NeedsDirtyLog => _migration is not null;

    /// <inheritdoc/>
    protected override async ValueTask OnLogChangedAsync(DirtyLog? log)
    {
        _dirtyLog = log;
        foreach (PciQueue queue in _queues)
        {
            if (queue.Running is { } running)
            {
                await running.LogAsync(LogOf(queue)).ConfigureAwait(false);
            }
        }
    }

    private QueueLog? LogOf(PciQueue queue) => _dirtyLog is { } log ? new QueueLog(log, queue.Device) : null;

    /// <summary>Stops all queues, and whatever else a guest could notice.</summary>
    private async ValueTask HaltAsync()
    {
        _isHalted = true;
        foreach (PciQueue queue in _queues)
        {
            await StopAsync(queue).ConfigureAwait(false);
        }
    }

    /// <summary>Goes on from where the queues stand.</summary>
    private async ValueTask ContinueAsync(bool hasMoved)
    {
        _isHalted = false;
        GuestMemory memory = Dma.Memory;
        foreach (PciQueue queue in _queues)
        {
            if (queue is { IsEnabled: true, Running: null } && queue.IsIn(memory, IsPacked))
            {
                await StartAsync(queue, memory).ConfigureAwait(false);
            }
        }

        bool isReady = Status.HasFlag(VirtioStatus.DriverOk);
        if (isReady && hasMoved)
        {
            foreach (PciQueue queue in _queues)
            {
                if (queue.IsEnabled)
                {
                    Interrupt(queue.Vector, VirtioPci.IsrQueue);
                }
            }
        }

        if (_owesConfigChange)
        {
            _owesConfigChange = false;
            OnConfigChanged();
        }

        UpdatePin();
    }

    /// <summary>Carries out the steps of a migration.</summary>
    private sealed class VirtioPciMigration(VirtioPciFunction function, VirtioDevice device) : FramedMigration
    {
        private const int OfferBytes = 16;

        protected override int MaxOfferBytes => OfferBytes;

        protected override int MaxStateBytes => DeviceStateFormat.MaxBytes;

        public override void Abandon()
        {
            base.Abandon();
            function._isHalted = function._owesConfigChange = false;
        }

        protected override byte[] MakeOffer()
        {
            byte[] offer = new byte[OfferBytes];
            BinaryPrimitives.WriteUInt16LittleEndian(offer, (ushort)device.Id);
            BinaryPrimitives.WriteUInt16LittleEndian(offer.AsSpan(2), (ushort)function._queues.Length);
            BinaryPrimitives.WriteInt32LittleEndian(offer.AsSpan(4), device.Config.SizeBytes);
            BinaryPrimitives.WriteUInt64LittleEndian(offer.AsSpan(8), function._driverFeatures);
            return offer;
        }

        protected override void RequireOffer(ReadOnlySpan<byte> offer)
        {
            bool fits = offer.Length == OfferBytes
                && BinaryPrimitives.ReadUInt16LittleEndian(offer) == (ushort)device.Id
                && BinaryPrimitives.ReadUInt16LittleEndian(offer[2..]) == function._queues.Length
                && BinaryPrimitives.ReadInt32LittleEndian(offer[4..]) == device.Config.SizeBytes
                && (BinaryPrimitives.ReadUInt64LittleEndian(offer[8..]) & ~function._offeredFeatures) == 0;
            if (!fits)
            {
                throw new MigrationException(
                    Errno.NotSupported, $"another device: {Convert.ToHexStringLower(offer)}");
            }
        }

        protected override ValueTask HaltAsync() => function.HaltAsync();

        /// <summary>Makes the state, and lets go of what one host only may use.</summary>
        protected override byte[] Leave()
        {
            try
            {
                byte[] state = VirtioPciState.Save(function, device);
                device.HandOver();
                return state;
            }
            catch (DeviceStateException error)
            {
                throw new MigrationException(Errno.Busy, error.Message);
            }
        }

        protected override void Arrive(ReadOnlySpan<byte> state)
        {
            try
            {
                VirtioPciState.Load(function, device, state);
            }
            catch (DeviceStateException error)
            {
                function._log.LogWarning("the state that came is refused: {Reason}", error.Message);
                throw new MigrationException(Errno.InvalidArgument, error.Message);
            }
        }

        protected override async ValueTask ContinueAsync(bool hasMoved)
        {
            // a function that nobody uses takes nothing: its first queue will
            if (function.UsesMemory)
            {
                try
                {
                    await device.TakeOverAsync().ConfigureAwait(false);
                }
                catch (IOException error)
                {
                    throw new MigrationException(Errno.Busy, error.Message);
                }
            }

            await function.ContinueAsync(hasMoved).ConfigureAwait(false);
        }
    }
}

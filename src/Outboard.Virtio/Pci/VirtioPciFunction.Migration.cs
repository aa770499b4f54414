// How a virtio function moves: its registers, where its queues stand, and the device's own state. The stream has frames
// of {kind u32, length u32, bytes}:
//
//   1 offer   0 device type u16, 2 queues u16, 4 configuration space bytes u32, 8 features u64. Comes in pre-copy, so
//             that a destination refuses before any memory has been copied
//   2 state   a device's state (State/DeviceStateFormat), whose records are named in VirtioPciState
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
    }

    /// <summary>Carries out the steps of a migration.</summary>
    private sealed class VirtioPciMigration(VirtioPciFunction function, VirtioDevice device) : PciMigration
    {
        private const int HeadBytes = 8;
        private const int OfferBytes = 16;
        private const uint OfferKind = 1;
        private const uint StateKind = 2;

        private byte[] _leaving = [];
        private int _read;
        private byte[] _arrived = [];
        private bool _hasBegun;
        private bool _hasState;
        private bool _hasMoved;

        public override bool HasPreCopy => true;

        public override async ValueTask EnterAsync(MigrationState previous, MigrationState state)
        {
            switch (state)
            {
                case MigrationState.PreCopy:
                    _leaving = Offer();
                    _read = 0;
                    break;
                case MigrationState.StopCopy:
                    await function.HaltAsync().ConfigureAwait(false);
                    Leave(keepsOffer: previous == MigrationState.PreCopy);
                    break;
                case MigrationState.Resuming:
                    _arrived = [];
                    _hasBegun = _hasState = false;
                    break;
                case MigrationState.Stop when previous == MigrationState.Resuming:
                    if (_hasBegun && (!_hasState || _arrived.Length > 0))
                    {
                        throw new MigrationException(
                            Errno.InvalidArgument, $"the stream ends with {_arrived.Length} bytes of a frame");
                    }

                    break;
                case MigrationState.Stop:
                    await function.HaltAsync().ConfigureAwait(false);
                    break;
                case MigrationState.Running when previous == MigrationState.Stop:
                    await ArriveAsync().ConfigureAwait(false);
                    break;
            }
        }

        public override int ReadData(Span<byte> destination)
        {
            int count = Math.Min(destination.Length, _leaving.Length - _read);
            _leaving.AsSpan(_read, count).CopyTo(destination);
            _read += count;
            return count;
        }

        public override void WriteData(ReadOnlySpan<byte> source)
        {
            if (source.IsEmpty)
            {
                return;
            }

            _hasBegun = true;
            if (_hasState || _arrived.Length + source.Length > DeviceStateFormat.MaxBytes + HeadBytes)
            {
                throw new MigrationException(Errno.InvalidArgument, "the stream goes on beyond its end");
            }

            byte[] bytes = [.. _arrived, .. source];
            int taken = 0;
            while (TryApply(bytes.AsSpan(taken), out int used))
            {
                taken += used;
            }

            _arrived = bytes[taken..];
        }

        /// <summary>The function is reset, or its client is gone: as if nobody had asked for a migration.</summary>
        internal void Abandon()
        {
            _leaving = _arrived = [];
            _read = 0;
            _hasBegun = _hasState = _hasMoved = false;
            function._isHalted = function._owesConfigChange = false;
        }

        private static byte[] Frame(uint kind, ReadOnlySpan<byte> bytes)
        {
            byte[] frame = new byte[HeadBytes + bytes.Length];
            BinaryPrimitives.WriteUInt32LittleEndian(frame, kind);
            BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(sizeof(uint)), bytes.Length);
            bytes.CopyTo(frame.AsSpan(HeadBytes));
            return frame;
        }

        private byte[] Offer()
        {
            byte[] offer = new byte[OfferBytes];
            BinaryPrimitives.WriteUInt16LittleEndian(offer, (ushort)device.Id);
            BinaryPrimitives.WriteUInt16LittleEndian(offer.AsSpan(2), (ushort)function._queues.Length);
            BinaryPrimitives.WriteInt32LittleEndian(offer.AsSpan(4), device.Config.SizeBytes);
            BinaryPrimitives.WriteUInt64LittleEndian(offer.AsSpan(8), function._driverFeatures);
            return Frame(OfferKind, offer);
        }

        /// <summary>Makes the stream, and lets go of what one host only may use: the guest goes on elsewhere.</summary>
        private void Leave(bool keepsOffer)
        {
            try
            {
                byte[] unread = keepsOffer ? _leaving[_read..] : Offer();
                _leaving = [.. unread, .. Frame(StateKind, VirtioPciState.Save(function, device))];
                _read = 0;
                device.HandOver();
            }
            catch (DeviceStateException error)
            {
                throw new MigrationException(Errno.Busy, error.Message);
            }
        }

        private async ValueTask ArriveAsync()
        {
            _leaving = [];
            try
            {
                await device.TakeOverAsync().ConfigureAwait(false);
            }
            catch (IOException error)
            {
                throw new MigrationException(Errno.Busy, error.Message);
            }

            await function.ContinueAsync(_hasMoved).ConfigureAwait(false);
            _hasMoved = false;
        }

        private bool TryApply(ReadOnlySpan<byte> bytes, out int used)
        {
            used = 0;
            if (bytes.Length < HeadBytes)
            {
                return false;
            }

            uint kind = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(bytes[sizeof(uint)..]);
            bool isKnown = !_hasState && (kind == OfferKind ? length == OfferBytes
                : kind == StateKind && length <= DeviceStateFormat.MaxBytes);
            if (!isKnown)
            {
                throw new MigrationException(Errno.InvalidArgument, $"a frame of kind {kind} and {length} bytes");
            }

            if (bytes.Length < HeadBytes + (int)length)
            {
                return false;
            }

            used = HeadBytes + (int)length;
            Apply(kind, bytes[HeadBytes..used]);
            return true;
        }

        private void Apply(uint kind, ReadOnlySpan<byte> data)
        {
            if (kind == OfferKind)
            {
                ulong missing = BinaryPrimitives.ReadUInt64LittleEndian(data[8..]) & ~function._offeredFeatures;
                bool fits = BinaryPrimitives.ReadUInt16LittleEndian(data) == (ushort)device.Id
                    && BinaryPrimitives.ReadUInt16LittleEndian(data[2..]) == function._queues.Length
                    && BinaryPrimitives.ReadInt32LittleEndian(data[4..]) == device.Config.SizeBytes && missing == 0;
                if (!fits)
                {
                    throw new MigrationException(
                        Errno.NotSupported, $"another device: {Convert.ToHexStringLower(data)}");
                }

                return;
            }

            try
            {
                VirtioPciState.Load(function, device, data);
                _hasState = _hasMoved = true;
            }
            catch (DeviceStateException error)
            {
                function._log.LogWarning("the state that came is refused: {Reason}", error.Message);
                throw new MigrationException(Errno.InvalidArgument, error.Message);
            }
        }
    }
}

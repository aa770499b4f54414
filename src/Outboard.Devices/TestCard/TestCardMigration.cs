// How the test card migrates: a stream of records {type u32, length u32, data}: 1 BAR2, 2 SCRATCH, 0 the end. In
// pre-copy one record of BAR2 is given; when stopped all of them.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Pci;

namespace Outboard.Devices.TestCard;

public sealed partial class TestCardFunction
{
    private sealed class TestCardMigration(TestCardFunction card) : PciMigration
    {
        private const int HeadBytes = 8;
        private const uint EndRecord = 0;
        private const uint BufferRecord = 1;
        private const uint ScratchRecord = 2;

        private readonly Queue<byte[]> _records = [];
        private byte[] _arrived = [];
        private int _readOfFirst;
        private bool _isBad;
        private bool _hasEnded;
        private bool _hasBegun;

        public override bool HasPreCopy => true;

        public override ValueTask EnterAsync(MigrationState previous, MigrationState state)
        {
            if (card.TakeFault(TestCardFaults.Transition))
            {
                throw new MigrationException(Errno.InputOutput);
            }

            if (previous == MigrationState.Resuming)
            {
                bool isWhole = _arrived.Length == 0 && (_hasEnded || !_hasBegun);
                if (_isBad || !isWhole)
                {
                    throw new MigrationException(Errno.InvalidArgument);
                }
            }

            switch (state)
            {
                case MigrationState.PreCopy:
                    DropRecords(keepsBegun: false);
                    AddBuffer();
                    break;
                case MigrationState.StopCopy:
                    DropRecords(keepsBegun: previous == MigrationState.PreCopy);
                    AddBuffer();
                    AddScratch();
                    Add(EndRecord, []);
                    break;
                case MigrationState.Resuming:
                    _arrived = [];
                    _isBad = _hasEnded = _hasBegun = false;
                    break;
            }

            Note(state);
            return default;
        }

        public override void OnFailed()
        {
            lock (card._lock)
            {
                card.Put32(TestCardRegister.MigrationState, (uint)MigrationState.Error);
            }
        }

        public override int ReadData(Span<byte> destination)
        {
            if (card.TakeFault(TestCardFaults.StreamRead))
            {
                throw new MigrationException(Errno.InputOutput);
            }

            int total = 0;
            while (total < destination.Length && _records.TryPeek(out byte[]? first))
            {
                int part = Math.Min(first.Length - _readOfFirst, destination.Length - total);
                first.AsSpan(_readOfFirst, part).CopyTo(destination[total..]);
                total += part;
                _readOfFirst += part;
                if (_readOfFirst == first.Length)
                {
                    _records.Dequeue();
                    _readOfFirst = 0;
                }
            }

            return total;
        }

        public override void WriteData(ReadOnlySpan<byte> source)
        {
            if (card.TakeFault(TestCardFaults.StreamWrite))
            {
                throw new MigrationException(Errno.InputOutput);
            }

            if (source.IsEmpty || _isBad)
            {
                return;
            }

            _hasBegun = true;
            byte[] bytes = [.. _arrived, .. source];
            int taken = 0;
            while (!_isBad && TryApply(bytes.AsSpan(taken), out int used))
            {
                taken += used;
            }

            _arrived = bytes[taken..];
        }

        private bool TryApply(ReadOnlySpan<byte> bytes, out int used)
        {
            used = 0;
            if (bytes.Length > 0 && _hasEnded)
            {
                _isBad = true;
            }

            if (_isBad || bytes.Length < HeadBytes)
            {
                return false;
            }

            uint type = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(bytes[sizeof(uint)..]);
            int expected = type switch
            {
                EndRecord => 0,
                BufferRecord => BufferBytes,
                ScratchRecord => sizeof(ulong),
                _ => -1,
            };
            if (length != expected)
            {
                _isBad = true;
                return false;
            }

            if (bytes.Length < HeadBytes + expected)
            {
                return false;
            }

            used = HeadBytes + expected;
            Apply(type, bytes[HeadBytes..used]);
            return true;
        }

        private void Apply(uint type, ReadOnlySpan<byte> data)
        {
            switch (type)
            {
                case BufferRecord:
                    data.CopyTo(card._buffer.Window.Span);
                    break;
                case ScratchRecord:
                    lock (card._lock)
                    {
                        data.CopyTo(card._bar0.AsSpan(TestCardRegister.Scratch));
                    }

                    break;
                default:
                    _hasEnded = true;
                    break;
            }
        }

        /// <summary>Drops what nobody read; a record of which a part was read has to be completed.</summary>
        private void DropRecords(bool keepsBegun)
        {
            byte[]? begun = keepsBegun && _readOfFirst > 0 ? _records.Peek() : null;
            _records.Clear();
            if (begun is null)
            {
                _readOfFirst = 0;
            }
            else
            {
                _records.Enqueue(begun);
            }
        }

        private void AddBuffer() => Add(BufferRecord, card._buffer.Window.Span);

        private void AddScratch()
        {
            lock (card._lock)
            {
                Add(ScratchRecord, card._bar0.AsSpan(TestCardRegister.Scratch, sizeof(ulong)));
            }
        }

        private void Add(uint type, ReadOnlySpan<byte> data)
        {
            byte[] record = new byte[HeadBytes + data.Length];
            BinaryPrimitives.WriteUInt32LittleEndian(record, type);
            BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(sizeof(uint)), data.Length);
            data.CopyTo(record.AsSpan(HeadBytes));
            _records.Enqueue(record);
        }

        private void Note(MigrationState state)
        {
            lock (card._lock)
            {
                card.Put32(TestCardRegister.MigrationState, (uint)state);
                ulong path = card.Get64(TestCardRegister.MigrationPath);
                card.Put64(TestCardRegister.MigrationPath, (path << 4) | (uint)state);
            }
        }
    }
}

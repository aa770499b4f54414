// One queue's part of a state file: its state words and its entries. The algorithm is at the top of DeviceJournal.
using System.Numerics;
using System.Runtime.InteropServices;
using Outboard.Memory;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio.Journal;

/// <summary>One queue's state. On the queue's thread; while no queue runs, on the control plane.</summary>
/// <remarks>
/// Between Begin and Commit, which <see cref="JournaledQueue"/> calls around each request, the device reads and writes
/// words and sets a reply. Nothing of that reaches the file before the commit.
/// </remarks>
public sealed class JournalLane
{
    private const byte Committed = 1;

    private readonly DeviceJournal _journal;
    private readonly JournalLayout _layout;
    private readonly int _index;
    private readonly MemoryWindow _window;
    private readonly ulong[] _state;
    private readonly int[] _redo;
    private readonly byte[] _reply;
    private readonly bool[] _isOutstanding;
    private readonly int[] _unretired;
    private int _redoCount;
    private int _replyLength;
    private int _outstandingCount;
    private int _unretiredCount;
    private bool _matchesPosition;
    private uint _number;

    internal JournalLane(DeviceJournal journal, int index, MemoryWindow window)
    {
        _journal = journal;
        _layout = journal.Layout;
        _index = index;
        _window = window;
        _state = new ulong[_layout.StateWords];
        _redo = new int[_layout.RedoWords];
        _reply = new byte[JournalLayout.Words(_layout.ReplyBytes)];
        _isOutstanding = new bool[_layout.EntryCount];
        _unretired = new int[_layout.EntryCount];
        Recover();
        LoadState();
    }

    /// <summary>A state word, with what the present request has changed. From any thread, if it does not matter that
    /// a request may not have been committed.</summary>
    public ulong Read(int word) => Volatile.Read(ref _state[word]);

    /// <summary>Changes a state word, in a request; at most as many as the layout says.</summary>
    /// <exception cref="InvariantException">The request changes more.</exception>
    public void Write(int word, ulong value)
    {
        int at = _redo.AsSpan(0, _redoCount).IndexOf(word);
        if (at < 0)
        {
            if (_redoCount == _redo.Length)
            {
                throw new InvariantException($"a request changes more than {_redo.Length} words of {_journal.Name}");
            }

            _redo[_redoCount++] = word;
        }

        Volatile.Write(ref _state[word], value);
    }

    /// <summary>Sets the present request's reply, to be written to the front of its writable buffers.</summary>
    public void Reply(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(_reply.AsSpan(0, _layout.ReplyBytes));
        _replyLength = bytes.Length;
    }

    /// <summary>Replaces a state word while no queue runs: a guest arrives from another host.</summary>
    public void Restore(int word, ulong value)
    {
        _window.WriteRelease64(StateWord(word), value);
        _state[word] = value;
    }

    /// <summary>A queue begins: finds the requests that were committed and not answered, forgets the rest.</summary>
    internal void Settle(Virtqueue queue)
    {
        if (queue.Size > _layout.EntryCount)
        {
            throw new InvariantException($"{_journal.Name} has {_layout.EntryCount} entries for {queue.Size}");
        }

        LoadState();
        Begin();
        _unretiredCount = 0;
        _outstandingCount = 0;
        _matchesPosition = !queue.IsTracked;
        Array.Clear(_isOutstanding);
        List<(int Ahead, ushort Position, int Slot)> committed = FindCommitted();
        bool[] isHeld = new bool[_layout.EntryCount];
        foreach (int slot in HeldSlots(queue, committed))
        {
            isHeld[slot] = true;
        }

        foreach ((_, _, int slot) in committed)
        {
            if (isHeld[slot])
            {
                _isOutstanding[slot] = true;
                _outstandingCount++;
            }
            else
            {
                Free(slot);
            }
        }
    }

    /// <summary>Whether a chain was committed by an earlier process.</summary>
    /// <param name="slot">The chain's slot.</param>
    /// <param name="position">Where it was taken.</param>
    /// <param name="reply">What it is to be answered.</param>
    internal bool TryReplay(int slot, ushort position, out ReadOnlySpan<byte> reply)
    {
        reply = default;
        if (_outstandingCount == 0 || !_isOutstanding[slot])
        {
            return false;
        }

        _isOutstanding[slot] = false;
        _outstandingCount--;
        uint entry = Entry(slot);
        if (_matchesPosition && Word.Position(_window.Read<ulong>(entry)) != position)
        {
            return false;
        }

        _unretired[_unretiredCount++] = slot;
        int length = _window.Read<int>(entry + JournalLayout.ReplyLengthOffset);
        for (int i = 0; i < length; i += sizeof(ulong))
        {
            ulong word = _window.Read<ulong>(entry + _layout.ReplyStart + (uint)i);
            MemoryMarshal.Write(_reply.AsSpan(i), in word);
        }

        reply = _reply.AsSpan(0, length);
        return true;
    }

    /// <summary>A request begins.</summary>
    internal void Begin()
    {
        _redoCount = 0;
        _replyLength = 0;
    }

    /// <summary>The request cannot be handled now: it has changed nothing.</summary>
    internal void Abandon()
    {
        for (int i = 0; i < _redoCount; i++)
        {
            _state[_redo[i]] = _window.Read<ulong>(StateWord(_redo[i]));
        }

        Begin();
    }

    /// <summary>The request takes effect: steps A1 to A4.</summary>
    /// <returns>The reply.</returns>
    internal ReadOnlySpan<byte> Commit(int slot, ushort position)
    {
        uint entry = Entry(slot);
        ulong commit = Word.Make(++_number, position, (byte)_redoCount);
        uint sum = BitOperations.Crc32C(BitOperations.Crc32C(uint.MaxValue, commit), (ulong)_replyLength);
        for (int i = 0; i < _redoCount; i++)
        {
            uint redo = entry + JournalLayout.RedoOffset + (uint)(i * JournalLayout.RedoBytes);
            sum = Put(redo, (ulong)_redo[i], sum);
            sum = Put(redo + 8, _state[_redo[i]], sum);
        }

        _reply.AsSpan(_replyLength, JournalLayout.Words(_replyLength) - _replyLength).Clear();
        for (int i = 0; i < _replyLength; i += sizeof(ulong))
        {
            sum = Put(entry + _layout.ReplyStart + (uint)i, MemoryMarshal.Read<ulong>(_reply.AsSpan(i)), sum);
        }

        _window.WriteRelease64(entry + JournalLayout.ReplyLengthOffset, (uint)_replyLength | ((ulong)~sum << 32));
        _window.WriteRelease64(entry, commit);
        for (int i = 0; i < _redoCount; i++)
        {
            _window.WriteRelease64(StateWord(_redo[i]), _state[_redo[i]]);
        }

        _window.WriteRelease64(JournalLayout.AppliedOffset, _number);
        _unretired[_unretiredCount++] = slot;
        return _reply.AsSpan(0, _replyLength);
    }

    /// <summary>All that was returned is published: step A6. What waits for its turn is neither.</summary>
    /// <exception cref="JournalException">Another process truncated the file.</exception>
    internal void Retire(Virtqueue queue)
    {
        int kept = 0;
        for (int i = 0; i < _unretiredCount; i++)
        {
            if (queue.Keeps(_unretired[i]))
            {
                _unretired[kept++] = _unretired[i];
            }
            else
            {
                Free(_unretired[i]);
            }
        }

        _unretiredCount = kept;
        if (_journal.IsTruncated)
        {
            throw new JournalException($"{_journal.Name} was truncated by another process: its state is lost");
        }
    }

    private uint Entry(int slot) => _layout.EntriesStart + ((uint)slot * _layout.EntryBytes);

    private static uint StateWord(int word) => JournalLayout.StateOffset + ((uint)word * sizeof(ulong));

    private void Free(int slot) => _window.WriteRelease64(Entry(slot), 0);

    private uint Put(uint offset, ulong value, uint sum)
    {
        _window.WriteRelease64(offset, value);
        return BitOperations.Crc32C(sum, value);
    }

    private void LoadState()
    {
        for (int i = 0; i < _state.Length; i++)
        {
            _state[i] = _window.Read<ulong>(StateWord(i));
        }

        _number = (uint)_window.Read<ulong>(JournalLayout.AppliedOffset);
    }

    /// <summary>Applies the entry that was committed last, if that had not been done to its end.</summary>
    private void Recover()
    {
        _number = (uint)_window.Read<ulong>(JournalLayout.AppliedOffset);
        int pending = -1;
        for (int slot = 0; slot < _layout.EntryCount; slot++)
        {
            ulong commit = _window.Read<ulong>(Entry(slot));
            if (commit == 0)
            {
                continue;
            }

            CheckEntry(slot, commit);
            int ahead = (int)(Word.Number(commit) - _number);
            if (ahead > 1 || (ahead == 1 && pending >= 0))
            {
                throw Damaged(slot, "its number does not follow on the last one");
            }

            pending = ahead == 1 ? slot : pending;
        }

        if (pending < 0)
        {
            return;
        }

        uint redo = Entry(pending) + JournalLayout.RedoOffset;
        for (int i = 0; i < Word.RedoCount(_window.Read<ulong>(Entry(pending))); i++, redo += JournalLayout.RedoBytes)
        {
            _window.WriteRelease64(StateWord((int)_window.Read<ulong>(redo)), _window.Read<ulong>(redo + 8));
        }

        _window.WriteRelease64(JournalLayout.AppliedOffset, ++_number);
    }

    private void CheckEntry(int slot, ulong commit)
    {
        uint entry = Entry(slot);
        uint length = _window.Read<uint>(entry + JournalLayout.ReplyLengthOffset);
        int redoCount = Word.RedoCount(commit);
        if (Word.State(commit) != Committed || redoCount > _layout.RedoWords || length > _layout.ReplyBytes)
        {
            throw Damaged(slot, $"its first word is 0x{commit:x}, its reply has {length} bytes");
        }

        uint sum = BitOperations.Crc32C(BitOperations.Crc32C(uint.MaxValue, commit), (ulong)length);
        for (uint i = 0; i < redoCount; i++)
        {
            uint redo = entry + JournalLayout.RedoOffset + (i * JournalLayout.RedoBytes);
            ulong word = _window.Read<ulong>(redo);
            if (word >= (uint)_layout.StateWords)
            {
                throw Damaged(slot, $"it changes word {word} of {_layout.StateWords}");
            }

            sum = BitOperations.Crc32C(BitOperations.Crc32C(sum, word), _window.Read<ulong>(redo + 8));
        }

        for (uint i = 0; i < length; i += sizeof(ulong))
        {
            sum = BitOperations.Crc32C(sum, _window.Read<ulong>(entry + _layout.ReplyStart + i));
        }

        if (~sum != _window.Read<uint>(entry + JournalLayout.EntryChecksumOffset))
        {
            throw Damaged(slot, "its checksum is wrong");
        }
    }

    private List<(int Ahead, ushort Position, int Slot)> FindCommitted()
    {
        List<(int Ahead, ushort Position, int Slot)> committed = [];
        for (int slot = 0; slot < _layout.EntryCount; slot++)
        {
            ulong commit = _window.Read<ulong>(Entry(slot));
            if (commit != 0)
            {
                committed.Add(((int)(Word.Number(commit) - _number), Word.Position(commit), slot));
            }
        }

        committed.Sort();
        return committed;
    }

    /// <summary>Of the slots that were committed, those that the ring still holds.</summary>
    private static IEnumerable<int> HeldSlots(Virtqueue queue, List<(int Ahead, ushort Position, int Slot)> committed)
    {
        if (queue.IsTracked)
        {
            return committed.Select(entry => entry.Slot).Where(queue.WillBeTakenAgain);
        }

        for (int i = 1; i < committed.Count; i++)
        {
            if (committed[i].Position != (ushort)(committed[i - 1].Position + 1))
            {
                return [];
            }
        }

        int first = committed.FindIndex(entry => entry.Position == queue.UsedPosition);
        return first < 0 ? [] : committed.Skip(first).Select(entry => entry.Slot);
    }

    private JournalException Damaged(int slot, string how) =>
        new($"{_journal.Name}: damaged: entry {slot} of queue {_index}: {how}");

    /// <summary>The commit word.</summary>
    private static class Word
    {
        internal static ulong Make(uint number, ushort position, byte redoCount) =>
            Committed | ((ulong)redoCount << 8) | ((ulong)position << 16) | ((ulong)number << 32);

        internal static byte State(ulong word) => (byte)word;

        internal static byte RedoCount(ulong word) => (byte)(word >> 8);

        internal static ushort Position(ulong word) => (ushort)(word >> 16);

        internal static uint Number(ulong word) => (uint)(word >> 32);
    }
}

// The MSI-X table and the pending bits, as registers in a BAR: per vector 0 address u64, 8 data u32, 12 control u32
// (bit 0: masked). Clients that emulate MSI-X (QEMU) never write the table here, so a vector's mask counts only after
// the first write to its entry: before that nobody has said anything.
using System.Buffers.Binary;

namespace Outboard.Pci.Interrupts;

/// <summary>The MSI-X table and pending bit array of a function. All members may be called from any thread.</summary>
public sealed class MsixTable
{
    private const int EntryBytes = 16;
    private const int ControlOffset = 12;
    private readonly Lock _lock = new();
    private readonly byte[] _entries;
    private readonly bool[] _touched;
    private readonly byte[] _pending;

    /// <summary>Creates a table whose vectors are all masked, as after a reset.</summary>
    public MsixTable(int vectorCount)
    {
        VectorCount = vectorCount;
        _entries = new byte[vectorCount * EntryBytes];
        _touched = new bool[vectorCount];
        _pending = new byte[(vectorCount + 63) / 64 * 8];
        Reset();
    }

    /// <summary>Raised after a write to the table.</summary>
    internal event Action? MaskChanged;

    /// <summary>Number of vectors.</summary>
    public int VectorCount { get; }

    /// <summary>Bytes of the table.</summary>
    public int TableBytes => _entries.Length;

    /// <summary>Bytes that <see cref="Save"/> gives.</summary>
    public int SavedBytes => _entries.Length + _touched.Length;

    /// <summary>Bytes of the pending bits.</summary>
    public int PendingBytes => _pending.Length;

    /// <summary>Reads the table; bytes beyond it are zero.</summary>
    public void ReadTable(ulong offset, Span<byte> destination) => Read(_entries, offset, destination);

    /// <summary>Reads the pending bits; bytes beyond them are zero. Writes to them change nothing.</summary>
    public void ReadPending(ulong offset, Span<byte> destination) => Read(_pending, offset, destination);

    /// <summary>Writes the table; bytes beyond it are dropped.</summary>
    public void WriteTable(ulong offset, ReadOnlySpan<byte> source)
    {
        lock (_lock)
        {
            for (int i = 0; i < source.Length && offset + (ulong)i < (ulong)_entries.Length; i++)
            {
                int at = (int)offset + i;
                int inEntry = at % EntryBytes;

                // of the control word only the mask bit exists
                _entries[at] = inEntry < ControlOffset ? source[i]
                    : inEntry == ControlOffset ? (byte)(source[i] & 1) : (byte)0;
                _touched[at / EntryBytes] = true;
            }
        }

        MaskChanged?.Invoke();
    }

    /// <summary>The table for another process: entries, then for each vector whether anybody ever wrote it.</summary>
    public byte[] Save()
    {
        lock (_lock)
        {
            return [.. _entries, .. _touched.Select(touched => (byte)(touched ? 1 : 0))];
        }
    }

    /// <summary>Takes over what <see cref="Save"/> gave, of a table of as many vectors.</summary>
    /// <exception cref="ArgumentException">It has another size.</exception>
    public void Load(ReadOnlySpan<byte> saved)
    {
        if (saved.Length != SavedBytes)
        {
            throw new ArgumentException($"{saved.Length} bytes for {VectorCount} vectors", nameof(saved));
        }

        lock (_lock)
        {
            saved[.._entries.Length].CopyTo(_entries);
            for (int vector = 0; vector < VectorCount; vector++)
            {
                _touched[vector] = saved[_entries.Length + vector] != 0;
                _entries[(vector * EntryBytes) + ControlOffset] &= 1;
            }
        }

        MaskChanged?.Invoke();
    }

    /// <summary>Masks all vectors, and forgets addresses and pending bits.</summary>
    public void Reset()
    {
        lock (_lock)
        {
            _entries.AsSpan().Clear();
            _pending.AsSpan().Clear();
            _touched.AsSpan().Clear();
            for (int vector = 0; vector < VectorCount; vector++)
            {
                _entries[(vector * EntryBytes) + ControlOffset] = 1;
            }
        }
    }

    /// <summary>Address and data of a vector's message.</summary>
    public (ulong Address, uint Data) Message(int vector)
    {
        lock (_lock)
        {
            ReadOnlySpan<byte> entry = _entries.AsSpan(vector * EntryBytes, EntryBytes);
            return (BinaryPrimitives.ReadUInt64LittleEndian(entry),
                BinaryPrimitives.ReadUInt32LittleEndian(entry[sizeof(ulong)..]));
        }
    }

    internal bool IsMasked(int vector)
    {
        lock (_lock)
        {
            return _touched[vector] && (_entries[(vector * EntryBytes) + ControlOffset] & 1) != 0;
        }
    }

    internal void SetPending(int vector, bool pending)
    {
        lock (_lock)
        {
            byte bit = (byte)(1 << (vector % 8));
            _pending[vector / 8] = (byte)(pending ? _pending[vector / 8] | bit : _pending[vector / 8] & ~bit);
        }
    }

    private void Read(byte[] bytes, ulong offset, Span<byte> destination)
    {
        destination.Clear();
        if (offset < (ulong)bytes.Length)
        {
            int count = Math.Min(destination.Length, bytes.Length - (int)offset);
            lock (_lock)
            {
                bytes.AsSpan((int)offset, count).CopyTo(destination);
            }
        }
    }
}

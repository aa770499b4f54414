// Aligned memory for what O_DIRECT does not take from guest memory as it lies, and a piece of zeroes.
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Devices.Block.Backends;

/// <summary>One bounce buffer.</summary>
internal sealed class AlignedBounce(AlignedBuffer buffer)
{
    internal IoSegment Segment => buffer.Segment;

    internal void Free() => buffer.Dispose();
}

/// <summary>A queue's bounce buffers. Used by one thread.</summary>
internal sealed class BouncePool : IDisposable
{
    /// <summary>Bytes of a buffer; a larger request goes through it piece by piece.</summary>
    private const int BufferBytes = 1 << 20;

    /// <summary>
    /// Buffers of a queue: what a guest with unaligned buffers can make this process allocate, in MiB.
    /// </summary>
    private const int MaxBuffers = 16;

    private const int ZeroBytes = 256 << 10;

    private readonly Stack<AlignedBounce> _free = new(MaxBuffers);
    private AlignedBuffer? _zeroes;
    private int _made;

    /// <summary>A buffer of zeroes. Nobody writes into it.</summary>
    internal IoSegment Zeroes
    {
        get
        {
            if (_zeroes is null)
            {
                _zeroes = new AlignedBuffer(ZeroBytes);
                _zeroes.Span.Clear();
            }

            return _zeroes.Segment;
        }
    }

    /// <summary>Takes a buffer; it may be smaller than what is wanted.</summary>
    /// <returns>False when all are in use.</returns>
    internal bool TryRent(long wantedBytes, out AlignedBounce? bounce)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(wantedBytes);
        if (_free.TryPop(out bounce))
        {
            return true;
        }

        if (_made == MaxBuffers)
        {
            return false;
        }

        _made++;
        bounce = new AlignedBounce(new AlignedBuffer(BufferBytes));
        return true;
    }

    internal void Return(AlignedBounce bounce) => _free.Push(bounce);

    public void Dispose()
    {
        while (_free.TryPop(out AlignedBounce? bounce))
        {
            bounce.Free();
        }

        _zeroes?.Dispose();
    }
}

// A command in several steps: it waits for the disk, and for guest memory that has to be reached by messages. Kept and
// used again, so that those without messages allocate nothing as long as few wait at the same time: the runtime keeps
// few states of asynchronous methods. Reads, writes, flushes of one namespace and write zeroes are no tasks.
using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>A command in several steps. Used by its queue's thread.</summary>
internal sealed class IoTask : IValueTaskSource<int>
{
    private readonly Action _observe;
    private ManualResetValueTaskSourceCore<int> _disk;
    private ValueTaskAwaiter _running;
    private IoSegment _segment;
    private bool _waitsForDisk;

    internal IoTask() => _observe = () => _running.GetResult();

    internal NvmeCommand Command { get; set; }

    /// <summary>The slot of the queue.</summary>
    internal int Index { get; set; }

    /// <summary>The namespace; null for all.</summary>
    internal DiskChannel? Channel { get; set; }

    internal TransferBuffer? Buffer { get; set; }

    internal List<DmaRange> Ranges { get; } = [];

    /// <summary>The memory of the disk's operation.</summary>
    internal ReadOnlySpan<IoSegment> Segments => _segment.Length == 0 ? [] : new ReadOnlySpan<IoSegment>(in _segment);

    /// <summary>Lets the task go on by itself; whatever it throws is this program's fault.</summary>
    internal void Observe(ValueTask running)
    {
        _running = running.GetAwaiter();
        if (_running.IsCompleted)
        {
            _running.GetResult();
        }
        else
        {
            _running.UnsafeOnCompleted(_observe);
        }
    }

    /// <summary>Has the disk do something.</summary>
    /// <returns>0, or a negative error number.</returns>
    internal ValueTask<int> RunAsync(DiskChannel channel, in DiskOperation operation, IoSegment segment)
    {
        _segment = segment;
        _disk.Reset();
        _waitsForDisk = true;
        int result = channel.Queue.Start((uint)Index, in operation, Segments);
        if (result == DiskQueue.Pending)
        {
            return new ValueTask<int>(this, _disk.Version);
        }

        _waitsForDisk = false;
        return new ValueTask<int>(result);
    }

    /// <summary>The disk is done.</summary>
    internal void OnDisk(int result)
    {
        if (_waitsForDisk)
        {
            _waitsForDisk = false;
            _disk.SetResult(result);
        }
    }

    public int GetResult(short token) => _disk.GetResult(token);

    public ValueTaskSourceStatus GetStatus(short token) => _disk.GetStatus(token);

    public void OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _disk.OnCompleted(continuation, state, token, flags);
}

/// <summary>Memory that data passes through on its way between a disk and a guest.</summary>
internal sealed class TransferBuffer : IDisposable
{
    private const int ChunkBytes = 64 << 10;
    private readonly AlignedBuffer _native = new(DataPointer.MaxTransferBytes);

    /// <summary>For the disk.</summary>
    internal IoSegment Data => _native.Segment;

    /// <summary>For the guest.</summary>
    internal byte[] Chunk { get; } = new byte[ChunkBytes];

    public void Dispose() => _native.Dispose();
}

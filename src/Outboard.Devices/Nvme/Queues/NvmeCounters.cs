// What one submission queue did, for the health log.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>Counts. One thread counts, others read.</summary>
internal sealed class NvmeCounters
{
    private long _reads;
    private long _writes;
    private long _bytesRead;
    private long _bytesWritten;
    private long _mediaErrors;

    internal long Reads => Volatile.Read(ref _reads);

    internal long Writes => Volatile.Read(ref _writes);

    internal long BytesRead => Volatile.Read(ref _bytesRead);

    internal long BytesWritten => Volatile.Read(ref _bytesWritten);

    internal long MediaErrors => Volatile.Read(ref _mediaErrors);

    internal void Count(DiskOperationKind kind, long bytes, NvmeStatus status)
    {
        if (bytes > 0 && status == NvmeStatus.Success && kind == DiskOperationKind.Read)
        {
            Volatile.Write(ref _reads, _reads + 1);
            Volatile.Write(ref _bytesRead, _bytesRead + bytes);
        }
        else if (bytes > 0 && status == NvmeStatus.Success && kind == DiskOperationKind.Write)
        {
            Volatile.Write(ref _writes, _writes + 1);
            Volatile.Write(ref _bytesWritten, _bytesWritten + bytes);
        }
        else if (status is NvmeStatus.UnrecoveredReadError or NvmeStatus.WriteFault)
        {
            Volatile.Write(ref _mediaErrors, _mediaErrors + 1);
        }
    }

    /// <summary>Values of <see cref="Save"/>.</summary>
    internal const int SavedValues = 5;

    /// <summary>For another process: reads, writes, bytes read, bytes written, media errors.</summary>
    internal long[] Save() => [Reads, Writes, BytesRead, BytesWritten, MediaErrors];

    /// <summary>Takes over what another process had counted.</summary>
    internal void Load(ReadOnlySpan<long> saved)
    {
        Volatile.Write(ref _reads, saved[0]);
        Volatile.Write(ref _writes, saved[1]);
        Volatile.Write(ref _bytesRead, saved[2]);
        Volatile.Write(ref _bytesWritten, saved[3]);
        Volatile.Write(ref _mediaErrors, saved[4]);
    }

    /// <summary>Adds another queue's counts: of one that ends.</summary>
    internal void Add(NvmeCounters other)
    {
        Interlocked.Add(ref _reads, other.Reads);
        Interlocked.Add(ref _writes, other.Writes);
        Interlocked.Add(ref _bytesRead, other.BytesRead);
        Interlocked.Add(ref _bytesWritten, other.BytesWritten);
        Interlocked.Add(ref _mediaErrors, other.MediaErrors);
    }
}

// What load is put on a block back-end.
using System.Numerics;

namespace Outboard.Cli.Bench;

/// <summary>How the load waits for completions.</summary>
internal enum WaitMode
{
    /// <summary>Like a guest: submit, sleep until called, collect all, ask for the next call.</summary>
    Irq,

    /// <summary>Collect what is there; sleep when nothing is.</summary>
    EventFd,

    /// <summary>Look until something is there; never sleep.</summary>
    Poll,
}

/// <summary>A load.</summary>
internal sealed record LoadSettings
{
    public required string SocketPath { get; init; }

    /// <summary>Whether this side listens on the socket, and the back-end connects.</summary>
    public bool Listens { get; init; }

    /// <summary>How long a back-end that went away may take until it is back; zero ends the load with it.</summary>
    public TimeSpan ReconnectLimit { get; init; }

    /// <summary>Whether the back-end is to record what it holds, if it can.</summary>
    public bool TrackInflight { get; init; } = true;

    /// <summary>A back-end that completes nothing for so long counts as dead.</summary>
    public TimeSpan StallLimit => TimedLoad.StallLimit + ReconnectLimit;

    public int QueueDepth { get; init; } = 32;

    public int BlockSize { get; init; } = 4096;

    public int ReadPercent { get; init; } = 100;

    public bool IsSequential { get; init; }

    public int QueueCount { get; init; } = 1;

    /// <summary>Descriptors of a virtqueue; 0 chooses enough for the depth.</summary>
    public int QueueSize { get; init; }

    public TimeSpan Duration { get; init; } = TimeSpan.FromSeconds(5);

    public TimeSpan WarmUp { get; init; } = TimeSpan.FromSeconds(0.5);

    /// <summary>Bytes from the disk's start that are used; 0 uses the whole disk.</summary>
    public long RangeBytes { get; init; }

    public WaitMode Mode { get; init; }

    public bool UseIndirect { get; init; }

    public bool UsePacked { get; init; }

    /// <summary>Whether requests are returned in order.</summary>
    public bool UseInOrder { get; init; }

    public bool UseEventIndex { get; init; } = true;

    /// <summary>Pass memory by SET_MEM_TABLE although the back-end has memory slots.</summary>
    public bool UseMemoryTable { get; init; }

    /// <summary>Processors for the load's threads, in turn; empty leaves them to the scheduler.</summary>
    public IReadOnlyList<int> Cpus { get; init; } = [];

    /// <summary>The processor whose distance from the first of <see cref="Cpus"/> is measured; -1 for none.</summary>
    public int DistanceTo { get; init; } = -1;

    /// <summary>The back-end's process, whose use of resources is reported; 0 for none.</summary>
    public int BackendProcessId { get; init; }

    public bool Verify { get; init; }

    /// <summary>The queue size in use: room for all requests in flight, and 256 at least as guests have.</summary>
    public int EffectiveQueueSize
    {
        get
        {
            const int smallest = 256;
            const int descriptorsPerRequest = 3;
            int needed = (QueueDepth + 1) * (UseIndirect ? 1 : descriptorsPerRequest);
            return QueueSize != 0 ? QueueSize : (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(needed, smallest));
        }
    }
}

// A disk that fails on purpose: wraps another one, and from a seed makes operations fail or take their time. The same
// seed and the same operations give the same faults.
using Outboard.Linux;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

/// <summary>Which faults to inject.</summary>
public sealed record FaultPlan
{
    /// <summary>Where the random numbers begin.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>Share of operations that fail, 0 to 1.</summary>
    public double ErrorRate { get; init; }

    /// <summary>Share of operations that are delayed, 0 to 1.</summary>
    public double DelayRate { get; init; }

    /// <summary>How long a delayed operation waits before it begins.</summary>
    public TimeSpan Delay { get; init; } = TimeSpan.FromMilliseconds(5);

    /// <summary>The error that failed operations report.</summary>
    public int ErrorNumber { get; init; } = Errno.InputOutput;
}

/// <summary>Wraps a disk and injects faults.</summary>
public sealed class FaultyDisk(Disk inner, FaultPlan plan) : Disk
{
    private int _queues;

    /// <inheritdoc/>
    public override long SizeBytes => inner.SizeBytes;

    /// <inheritdoc/>
    public override int BlockSize => inner.BlockSize;

    /// <inheritdoc/>
    public override int PhysicalBlockSize => inner.PhysicalBlockSize;

    /// <inheritdoc/>
    public override bool IsReadOnly => inner.IsReadOnly;

    /// <inheritdoc/>
    public override string Description => $"{inner.Description}, with faults (seed {plan.Seed})";

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth)
    {
        ulong seed = plan.Seed + ((ulong)Interlocked.Increment(ref _queues) * 0x9E3779B97F4A7C15);
        return new Queue(inner.OpenQueue(context, owner, depth), context, owner, plan, seed);
    }

    /// <inheritdoc/>
    public override long RefreshSize() => inner.RefreshSize();

    /// <inheritdoc/>
    public override int Flush() => inner.Flush();

    /// <inheritdoc/>
    public override Task AcquireAsync() => inner.AcquireAsync();

    /// <inheritdoc/>
    public override void Release() => inner.Release();

    /// <inheritdoc/>
    public override void Dispose() => inner.Dispose();

    private sealed class Queue(
        DiskQueue inner, IoContext context, IDiskQueueOwner owner, FaultPlan plan, ulong state) : DiskQueue
    {
        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
        {
            bool fails = Draw() < plan.ErrorRate;
            if (Draw() < plan.DelayRate)
            {
                _ = StartLaterAsync(request, operation, fails);
                return Pending;
            }

            return fails ? -plan.ErrorNumber : inner.Start(request, in operation, segments);
        }

        public override bool HasBacklog => inner.HasBacklog;

        public override void Retry() => inner.Retry();

        public override void OnFileCompletion(uint request, int result) => inner.OnFileCompletion(request, result);

        public override void Dispose()
        {
            inner.Dispose();
            base.Dispose();
        }

        private async Task StartLaterAsync(uint request, DiskOperation operation, bool fails)
        {
            await Task.Delay(plan.Delay).ConfigureAwait(false);
            context.Post(() =>
            {
                int result = fails ? -plan.ErrorNumber : inner.Start(request, in operation, owner.Segments(request));
                if (result != Pending)
                {
                    owner.OnDiskCompletion(request, result);
                }
            });
        }

        /// <summary>A number from 0 to 1 (xorshift).</summary>
        private double Draw()
        {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            return (state >> 11) * (1.0 / (1UL << 53));
        }
    }
}

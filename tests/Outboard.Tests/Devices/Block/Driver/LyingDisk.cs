// A disk that says it did what it did not, now and then: what the verifying load must find out.
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Virtio;

namespace Outboard.Tests.Devices.Block.Driver;

/// <summary>How a disk lies.</summary>
public enum Lie
{
    LoseWrites,
    TearWrites,
    MisplaceReads,
    FlipBits,
    SkipReads,
}

internal sealed class LyingDisk(Disk inner, Lie lie) : Disk
{
    /// <summary>One operation of so many is lied about, after a time of good conduct.</summary>
    private const int Interval = 100;

    private const int GoodConduct = 300;

    public override long SizeBytes => inner.SizeBytes;

    public override string Description => $"{inner.Description}, lying: {lie}";

    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) =>
        new Queue(inner.OpenQueue(context, owner, depth), lie);

    public override void Dispose() => inner.Dispose();

    private sealed class Queue(DiskQueue inner, Lie lie) : DiskQueue
    {
        private int _operations;

        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
        {
            DiskOperationKind wanted = lie is Lie.LoseWrites or Lie.TearWrites
                ? DiskOperationKind.Write : DiskOperationKind.Read;
            bool isLie = operation.Kind == wanted && ++_operations > GoodConduct && _operations % Interval == 0;
            if (!isLie)
            {
                return inner.Start(request, in operation, segments);
            }

            switch (lie)
            {
                case Lie.LoseWrites or Lie.SkipReads:
                    return 0;
                case Lie.TearWrites:
                    IoSegment half = segments[0].Slice(0, segments[0].Length / 2);
                    return inner.Start(request, operation with { Length = half.Length }, [half]);
                case Lie.MisplaceReads:
                    long elsewhere = operation.Offset == 0 ? operation.Length : 0;
                    return inner.Start(request, operation with { Offset = elsewhere }, segments);
                default:
                    int result = inner.Start(request, in operation, segments);
                    segments[0].Span[777] ^= 1;
                    return result;
            }
        }

        public override void Dispose()
        {
            inner.Dispose();
            base.Dispose();
        }
    }
}

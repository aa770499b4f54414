// The way of a request allocates nothing: measured on the worker's thread, for each kind of disk.
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class AllocationTests
{
    private const int Bytes = 1 << 20;
    private const int Requests = 3000;

    [Theory]
    [InlineData("null", FileIoEngineKind.Automatic, 256, 0u)]
    [InlineData("memory", FileIoEngineKind.Automatic, 256, 0u)]
    [InlineData("buffered", FileIoEngineKind.IoUring, 256, 0u)]
    [InlineData("buffered", FileIoEngineKind.Threads, 256, 0u)]
    [InlineData("direct", FileIoEngineKind.IoUring, 256, 0u)]
    [InlineData("direct", FileIoEngineKind.Threads, 256, 0u)]
    [InlineData("direct", FileIoEngineKind.IoUring, 1, 0u)]
    [InlineData("direct", FileIoEngineKind.IoUring, 256, 1u)]
    [InlineData("direct", FileIoEngineKind.IoUring, 1, 1u)]
    public async Task Requests_allocate_nothing(string kind, FileIoEngineKind engine, int depth, uint misaligned)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        Disk disk = kind == "null" ? new NullDisk(Bytes) : ChainShapeTests.OpenDisk(kind, file, Bytes);
        BlockRigOptions options = new()
        {
            Worker = new QueueWorkerOptions { FileEngine = engine, FileDepth = depth },
            QueueSize = 256,
        };
        await using BlockRig rig = await BlockRig.StartAsync(disk, options);
        Batch batch = new(rig, misaligned);
        for (int warmUp = 0; warmUp < 40; warmUp++)
        {
            batch.Run();
        }

        long before = rig.AllocatedBytes();
        for (int sent = 0; sent < Requests; sent += Batch.Size)
        {
            batch.Run();
        }

        Assert.Equal(0, rig.AllocatedBytes() - before);
    }

    /// <summary>Reads, writes, flushes and write zeroes, many at once.</summary>
    private sealed class Batch
    {
        internal const int Size = 60;

        private readonly BlockRig _rig;
        private readonly DriverBuffer[][] _readable = new DriverBuffer[Size][];
        private readonly DriverBuffer[][] _writable = new DriverBuffer[Size][];
        private readonly DriverBuffer _statuses;

        internal Batch(BlockRig rig, uint misaligned)
        {
            _rig = rig;
            _statuses = rig.Allocate(Size);
            for (uint i = 0; i < Size; i++)
            {
                DriverBuffer header = rig.Allocate(BlockRequestHeader.Bytes, 16);
                DriverBuffer data = rig.Allocate(8192).Slice(misaligned, 4096);
                DriverBuffer status = _statuses.Slice(i, 1);
                BlockRequestType type = (i % 6) switch
                {
                    0 => BlockRequestType.Flush,
                    1 => BlockRequestType.WriteZeroes,
                    2 or 3 => BlockRequestType.In,
                    _ => BlockRequestType.Out,
                };
                ulong sector = type is BlockRequestType.In or BlockRequestType.Out ? i * 8 : 0;
                BlockRig.WriteHeader(header.Span, type, sector);
                BlockRange range = new(i * 8, 8, 1);
                DriverBuffer ranges = rig.Allocate(BlockRange.Bytes, 16);
                System.Runtime.InteropServices.MemoryMarshal.Write(ranges.Span, in range);
                _readable[i] = type switch
                {
                    BlockRequestType.Out => [header, data],
                    BlockRequestType.WriteZeroes => [header, ranges],
                    _ => [header],
                };
                _writable[i] = type == BlockRequestType.In ? [data, status] : [status];
            }
        }

        internal void Run()
        {
            _statuses.Span.Fill(BlockRig.NoStatus);
            for (uint i = 0; i < Size; i++)
            {
                _rig.Add(_readable[i], _writable[i], i);
            }

            _rig.Publish();
            for (int i = 0; i < Size; i++)
            {
                _rig.Collect();
            }

            Assert.True(_statuses.Span.IndexOfAnyExcept((byte)BlockStatus.Ok) < 0);
        }
    }
}

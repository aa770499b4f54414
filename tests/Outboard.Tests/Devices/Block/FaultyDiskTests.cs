// A disk that fails or takes its time: every request gets an answer, and a stop waits for all of them.
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Tests.Linux;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class FaultyDiskTests
{
    private const int Requests = 200;
    private const int DiskBytes = 1 << 20;

    [Theory]
    [InlineData("memory", 0.5, 0.0)]
    [InlineData("memory", 0.0, 1.0)]
    [InlineData("memory", 0.3, 0.3)]
    [InlineData("buffered", 0.3, 0.3)]
    [InlineData("direct", 0.3, 0.3)]
    [InlineData("direct", 1.0, 1.0)]
    public async Task Every_request_gets_a_status(string kind, double errors, double delays)
    {
        int[] failed = new int[2];
        for (int run = 0; run < 2; run++)
        {
            FaultPlan plan = new()
            {
                Seed = 42,
                ErrorRate = errors,
                DelayRate = delays,
                Delay = TimeSpan.FromMilliseconds(1),
            };
            using TemporaryFile file = TemporaryFile.OnDisk(DiskBytes);
            await using BlockRig rig = await StartAsync(kind, file, plan);
            DriverBuffer statuses = SubmitAll(rig);
            for (int i = 0; i < Requests; i++)
            {
                rig.Collect();
            }

            failed[run] = statuses.Span.Count((byte)BlockStatus.IoError);
            Assert.Equal(Requests - failed[run], statuses.Span.Count((byte)BlockStatus.Ok));
        }

        Assert.Equal(failed[0], failed[1]);
        Assert.Equal(errors > 0, failed[0] > 0);
    }

    [Fact]
    public async Task One_delayed_request_is_answered_although_nobody_kicks_again()
    {
        FaultPlan plan = new() { DelayRate = 1, Delay = TimeSpan.FromMilliseconds(20) };
        await using BlockRig rig = await BlockRig.StartAsync(new FaultyDisk(new MemoryDisk(DiskBytes), plan));
        Assert.Equal(BlockStatus.Ok, rig.Read(0, rig.Allocate(512)));
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("buffered")]
    [InlineData("direct")]
    public async Task A_stop_waits_for_delayed_requests(string kind)
    {
        FaultPlan plan = new() { DelayRate = 0.7, ErrorRate = 0.2, Delay = TimeSpan.FromMilliseconds(10) };
        using TemporaryFile file = TemporaryFile.OnDisk(DiskBytes);
        await using BlockRig rig = await StartAsync(kind, file, plan);
        for (int round = 0; round < 5; round++)
        {
            DriverBuffer statuses = SubmitAll(rig);
            uint taken = await rig.StopQueueAsync();
            int left = (ushort)(rig.Submitted - taken);
            Assert.Equal(left, statuses.Span.Count(BlockRig.NoStatus));
            for (int i = 0; i < Requests - left; i++)
            {
                Assert.True(rig.Queue.TryCollect(out _, out _));
            }

            await rig.StartQueueAtAsync(taken);
            for (int i = 0; i < left; i++)
            {
                rig.Collect();
            }
        }
    }

    [Theory]
    [InlineData(Errno.InputOutput, BlockStatus.IoError)]
    [InlineData(Errno.NoSpace, BlockStatus.IoError)]
    [InlineData(Errno.InvalidArgument, BlockStatus.IoError)]
    [InlineData(Errno.NotSupported, BlockStatus.Unsupported)]
    public async Task Error_numbers_become_statuses(int error, BlockStatus expected)
    {
        FaultPlan plan = new() { ErrorRate = 1, ErrorNumber = error };
        await using BlockRig rig = await BlockRig.StartAsync(new FaultyDisk(new MemoryDisk(DiskBytes), plan));
        DriverBuffer data = rig.Allocate(512);
        Assert.Equal(expected, rig.Request(BlockRequestType.In, 0, [data], isWritten: true).Status);
        Assert.Equal(expected, rig.Write(0, data));
        Assert.Equal(expected, rig.Flush());
        Assert.Equal(expected, rig.Range(BlockRequestType.Discard, new BlockRange(0, 1, 0)));
        Assert.Equal(expected, rig.Range(BlockRequestType.WriteZeroes, new BlockRange(0, 1, 0)));
    }

    private static Task<BlockRig> StartAsync(string kind, TemporaryFile file, FaultPlan plan) => BlockRig.StartAsync(
        new FaultyDisk(ChainShapeTests.OpenDisk(kind, file, DiskBytes), plan),
        new BlockRigOptions { QueueSize = 1024 });

    private static DriverBuffer SubmitAll(BlockRig rig)
    {
        DriverBuffer headers = rig.Allocate(Requests * BlockRequestHeader.Bytes, 16);
        DriverBuffer statuses = rig.Allocate(Requests, 1);
        DriverBuffer data = rig.Allocate(4096);
        statuses.Span.Fill(BlockRig.NoStatus);
        for (uint i = 0; i < Requests; i++)
        {
            DriverBuffer header = headers.Slice(i * BlockRequestHeader.Bytes, BlockRequestHeader.Bytes);
            BlockRequestType type = i % 2 == 0 ? BlockRequestType.In : BlockRequestType.Out;
            BlockRig.WriteHeader(header.Span, type, i * 8);
            DriverBuffer status = statuses.Slice(i, 1);
            DriverBuffer[] readable = i % 2 == 0 ? [header] : [header, data];
            rig.Add(readable, i % 2 == 0 ? [data, status] : [status], i);
        }

        rig.Publish();
        return statuses;
    }
}

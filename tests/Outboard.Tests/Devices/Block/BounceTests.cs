// Guest buffers that O_DIRECT does not take as they lie.
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class BounceTests
{
    private const int MiB = 1 << 20;

    /// <summary>
    /// A request larger than a bounce buffer whose rest, behind the first buffer's worth, is aligned: that part moves
    /// without the bounce buffer, and must not be overwritten from it.
    /// </summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 3)]
    [InlineData(2, 5)]
    public async Task An_aligned_rest_is_not_overwritten(int unalignedMiB, int alignedMiB)
    {
        int bytes = (unalignedMiB + alignedMiB) * MiB;
        using TemporaryFile file = TemporaryFile.OnDisk(bytes);
        byte[] image = new byte[bytes];
        new Random(3).NextBytes(image);
        await File.WriteAllBytesAsync(file.Path, image, TestContext.Current.CancellationToken);
        await using BlockRig rig = await BlockRig.StartAsync(
            FileDisk.Open(file.Path, direct: true), new BlockRigOptions { MemoryBytes = 32 * MiB });
        DriverBuffer first = rig.Allocate((unalignedMiB * MiB) + 1).Slice(1, (uint)unalignedMiB * MiB);
        DriverBuffer second = rig.Allocate(alignedMiB * MiB);
        Assert.Equal(BlockStatus.Ok, rig.Read(0, first, second));
        Assert.True(first.Span.SequenceEqual(image.AsSpan(0, unalignedMiB * MiB)));
        Assert.True(second.Span.SequenceEqual(image.AsSpan(unalignedMiB * MiB)));

        new Random(4).NextBytes(first.Span);
        new Random(5).NextBytes(second.Span);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, first, second));
        Assert.Equal(BlockStatus.Ok, rig.Flush());
        image = await File.ReadAllBytesAsync(file.Path, TestContext.Current.CancellationToken);
        Assert.True(first.Span.SequenceEqual(image.AsSpan(0, unalignedMiB * MiB)));
        Assert.True(second.Span.SequenceEqual(image.AsSpan(unalignedMiB * MiB)));
    }

    [Theory]
    [InlineData(FileIoEngineKind.IoUring, 256)]
    [InlineData(FileIoEngineKind.Threads, 256)]
    [InlineData(FileIoEngineKind.IoUring, 1)]
    public async Task More_unaligned_requests_than_bounce_buffers_are_all_answered(FileIoEngineKind engine, int depth)
    {
        const int Requests = 40;
        const int Bytes = 64 << 10;
        using TemporaryFile file = TemporaryFile.OnDisk(Requests * Bytes);
        BlockRigOptions options = new()
        {
            Worker = new QueueWorkerOptions { FileEngine = engine, FileDepth = depth },
            QueueSize = 256,
            MemoryBytes = 32 * MiB,
        };
        await using BlockRig rig = await BlockRig.StartAsync(FileDisk.Open(file.Path, direct: true), options);
        DriverBuffer headers = rig.Allocate(Requests * BlockRequestHeader.Bytes);
        DriverBuffer statuses = rig.Allocate(Requests);
        DriverBuffer data = rig.Allocate((Requests * Bytes) + 3).Slice(3, Requests * Bytes);
        foreach (BlockRequestType type in (BlockRequestType[])[BlockRequestType.Out, BlockRequestType.In])
        {
            bool isRead = type == BlockRequestType.In;
            statuses.Span.Fill(BlockRig.NoStatus);
            for (uint i = 0; i < Requests; i++)
            {
                DriverBuffer header = headers.Slice(i * BlockRequestHeader.Bytes, BlockRequestHeader.Bytes);
                DriverBuffer part = data.Slice(i * Bytes, Bytes);
                BlockRig.WriteHeader(header.Span, type, i * Bytes / 512);
                part.Span.Fill(isRead ? (byte)0 : (byte)(i + 1));
                DriverBuffer status = statuses.Slice(i, 1);
                rig.Add(isRead ? [header] : [header, part], isRead ? [part, status] : [status], i);
            }

            rig.Publish();
            for (int i = 0; i < Requests; i++)
            {
                rig.Collect();
            }

            Assert.True(statuses.Span.IndexOfAnyExcept((byte)BlockStatus.Ok) < 0);
        }

        for (int i = 0; i < Requests; i++)
        {
            Assert.True(data.Span.Slice(i * Bytes, Bytes).IndexOfAnyExcept((byte)(i + 1)) < 0, $"request {i}");
        }
    }
}

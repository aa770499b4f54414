using System.Buffers.Binary;
using Outboard.Devices.Block.Driver;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block.Driver;

public sealed class BlockConfigViewTests
{
    private static readonly byte[] s_space = MakeSpace();

    [Fact]
    public void Without_features_only_the_capacity_counts()
    {
        BlockConfigView view = BlockConfigView.Decode(s_space, 0);
        Assert.Equal(1000ul * 512, view.CapacityBytes);
        Assert.Equal(uint.MaxValue, view.SizeMax);
        Assert.Equal(uint.MaxValue, view.SegmentMax);
        Assert.Equal(512u, view.BlockSize);
        Assert.Equal(1, view.QueueCount);
        Assert.Equal(0, view.PhysicalBlockExponent);
        Assert.Null(view.IsWriteBack);
        Assert.Null(view.Discard);
        Assert.Null(view.WriteZeroes);
        Assert.False(view.HasFlush || view.IsReadOnly);
    }

    [Fact]
    public void With_all_features_every_field_counts()
    {
        BlockConfigView view = BlockConfigView.Decode(s_space, ulong.MaxValue);
        Assert.Equal(65536u, view.SizeMax);
        Assert.Equal(126u, view.SegmentMax);
        Assert.Equal(4096u, view.BlockSize);
        Assert.Equal((3, 1), (view.PhysicalBlockExponent, view.AlignmentOffset));
        Assert.Equal((8u, 64u), (view.MinIoBlocks, view.OptimalIoBlocks));
        Assert.True(view.IsWriteBack);
        Assert.Equal(4, view.QueueCount);
        Assert.Equal(new BlockRangeLimits(2048, 2, 8, MayUnmap: true), view.Discard);
        Assert.Equal(new BlockRangeLimits(4096, 3, 1, MayUnmap: true), view.WriteZeroes);
        Assert.True(view.HasFlush && view.IsReadOnly);
    }

    [Fact]
    public void A_short_space_counts_as_zero()
    {
        BlockConfigView view = BlockConfigView.Decode(s_space.AsSpan(0, 10), ulong.MaxValue);
        Assert.Equal(1000ul * 512, view.CapacityBytes);
        Assert.Equal(0, view.QueueCount);
    }

    private static byte[] MakeSpace()
    {
        byte[] space = new byte[BlockConfig.Bytes];
        foreach ((ConfigField field, ulong value) in ((ConfigField, ulong)[])
        [
            (BlockConfig.Capacity, 1000), (BlockConfig.SizeMax, 65536), (BlockConfig.SegMax, 126),
            (BlockConfig.BlockSize, 4096),
            (BlockConfig.PhysicalBlockExponent, 3), (BlockConfig.AlignmentOffset, 1), (BlockConfig.MinIoSize, 8),
            (BlockConfig.OptimalIoSize, 64), (BlockConfig.WriteBack, 1), (BlockConfig.QueueCount, 4),
            (BlockConfig.MaxDiscardSectors, 2048), (BlockConfig.MaxDiscardSegments, 2),
            (BlockConfig.DiscardAlignment, 8),
            (BlockConfig.MaxWriteZeroesSectors, 4096), (BlockConfig.MaxWriteZeroesSegments, 3),
            (BlockConfig.WriteZeroesMayUnmap, 1),
        ])
        {
            byte[] bytes = new byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
            bytes.AsSpan(0, field.SizeBytes).CopyTo(space.AsSpan(field.Offset));
        }

        return space;
    }
}

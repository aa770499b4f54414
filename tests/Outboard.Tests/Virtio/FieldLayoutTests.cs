// Layouts as data: what the notation means, what it refuses, and that the tables written in it are right.
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class FieldLayoutTests
{
    [Fact]
    public void Fields_follow_each_other_without_gaps()
    {
        FieldLayout layout = FieldLayout.Parse("a u8, b x16, - u8, c i32, d mac, e text4, f bytes");
        byte[] bytes = [1, 0x34, 0x12, 9, 0xFE, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4, 5, 6, (byte)'o', (byte)'k', 0, 7, 0xAB];
        Assert.Equal(
            ["a=1", "b=0x1234", "c=-2", "d=01:02:03:04:05:06", "e=ok", "f=ab"],
            layout.Decode(bytes).Select(value => $"{value.Name}={value.Text}"));
        Assert.Equal(18, layout.SizeBytes);
    }

    [Fact]
    public void Bits_are_counted_from_the_lowest()
    {
        FieldLayout layout = FieldLayout.Parse("index b8, no_fd b1, - b55, next u8");
        Assert.Equal([5UL, 1, 7], layout.Decode([5, 1, 0, 0, 0, 0, 0, 0, 7]).Select(value => value.Number));
        Assert.Equal(
            ulong.MaxValue >> 4,
            FieldLayout.Parse("- b4, wide b60").Decode([.. Enumerable.Repeat((byte)0xFF, 8)])[0].Number);
    }

    [Fact]
    public void Fields_that_are_cut_off_are_left_out()
    {
        FieldLayout layout = FieldLayout.Parse("a u32, b u32");
        Assert.Empty(layout.Decode([1, 2, 3]));
        Assert.Single(layout.Decode([1, 0, 0, 0, 2]));
        Assert.Equal(2, layout.Decode(new byte[100]).Count);
    }

    [Fact]
    public void Fields_without_their_feature_are_left_out()
    {
        FieldLayout layout = FieldLayout.Parse("a u8, b u16 ?B, c u32 ?C");
        Assert.Equal(["a", "c"], layout.Decode(new byte[7], null, new HashSet<string> { "C" }).Select(v => v.Name));
        Assert.Equal(3, layout.Decode(new byte[7]).Count);
        Assert.Equal(1, layout.SizeWith(new HashSet<string>()));
        Assert.Equal(3, layout.SizeWith(new HashSet<string> { "B" }));
        Assert.Equal(7, layout.SizeWith(new HashSet<string> { "C" }));
    }

    [Fact]
    public void Elements_are_counted_by_the_bytes_that_are_there()
    {
        FieldLayout layout = FieldLayout.Parse("count u8").FollowedBy("items", FieldLayout.Parse("x u16"));
        Assert.Equal(2, layout.Decode([9, 1, 0, 2, 0, 3])[1].Elements!.Count);
        Assert.Single(layout.Decode([9]));
    }

    [Theory]
    [InlineData("a")]
    [InlineData("a u7")]
    [InlineData("a b0")]
    [InlineData("a b65")]
    [InlineData("a b4")]
    [InlineData("a u8 B")]
    [InlineData("a u8 ?B c")]
    [InlineData("a word")]
    public void What_is_no_layout_is_refused(string text) =>
        Assert.Throws<FormatException>(() => FieldLayout.Parse(text));

    [Theory]
    [InlineData(VirtioDeviceId.Network, 28)]
    [InlineData(VirtioDeviceId.Block, 96)]
    [InlineData(VirtioDeviceId.Console, 12)]
    [InlineData(VirtioDeviceId.Balloon, 16)]
    [InlineData(VirtioDeviceId.Scsi, 36)]
    [InlineData(VirtioDeviceId.Gpu, 20)]
    [InlineData(VirtioDeviceId.Input, 136)]
    [InlineData(VirtioDeviceId.Socket, 8)]
    [InlineData(VirtioDeviceId.Crypto, 56)]
    [InlineData(VirtioDeviceId.Sound, 16)]
    [InlineData(VirtioDeviceId.FileSystem, 44)]
    [InlineData(VirtioDeviceId.Gpio, 8)]
    [InlineData(VirtioDeviceId.Spi, 32)]
    [InlineData(VirtioDeviceId.Memory, 56)]
    public void Configuration_spaces_have_the_sizes_of_their_structures(VirtioDeviceId device, int size) =>
        Assert.Equal(size, DeviceConfigLayouts.Of(device)!.SizeBytes);

    [Fact]
    public void Fields_of_our_own_constants_are_where_the_table_has_them()
    {
        Dictionary<string, int> offsets = Offsets(VirtioDeviceId.Block);
        Assert.Equal(BlockConfig.SegMax.Offset, offsets["seg_max"]);
        Assert.Equal(BlockConfig.MaxDiscardSectors.Offset, offsets["max_discard_sectors"]);
        Assert.Equal(BlockConfig.QueueCount.Offset, offsets["num_queues"]);
        Assert.Equal(NetConfig.Mtu.Offset, Offsets(VirtioDeviceId.Network)["mtu"]);
        Assert.Equal(NetConfig.MaxQueuePairs.Offset, Offsets(VirtioDeviceId.Network)["max_virtqueue_pairs"]);
    }

    [Fact]
    public void Every_gate_of_a_field_is_a_feature_of_its_device()
    {
        foreach (VirtioDeviceId device in Enum.GetValues<VirtioDeviceId>())
        {
            HashSet<string> names = [.. FeatureNames.Device(ulong.MaxValue, device)];
            IEnumerable<string> gates = DeviceConfigLayouts.Of(device)!.Rows.Select(row => row.Gate).OfType<string>();
            Assert.All(gates, gate => Assert.Contains(gate, names));
        }
    }

    [Fact]
    public void Features_have_names_and_suggest_a_device()
    {
        Assert.Equal(
            ["RO", "SCSI", "60"],
            FeatureNames.Device(BlockFeatures.ReadOnly | (1UL << 7) | (1UL << 60), VirtioDeviceId.Block));
        Assert.Equal(["VERSION_1", "RING_PACKED"], FeatureNames.Ring(5UL << 32));
        Assert.Equal(VirtioDeviceId.Block, FeatureNames.Guess(0x175007e44));
        Assert.Equal(VirtioDeviceId.Network, FeatureNames.Guess(NetFeatures.Mac | NetFeatures.GuestAnnounce));
        Assert.Null(FeatureNames.Guess(0x170000000));
        Assert.Null(FeatureNames.Guess(1UL << 0));
    }

    [Fact]
    public void Words_of_device_types_are_read_back()
    {
        Assert.All(DeviceTypeWords.All, word =>
            Assert.Equal(word, DeviceTypeWords.Of(DeviceTypeWords.Parse(word)!.Value)));
        Assert.All(
            Enum.GetValues<VirtioDeviceId>(), id => Assert.Equal(id, DeviceTypeWords.Parse(DeviceTypeWords.Of(id))));
        Assert.Equal((VirtioDeviceId)99, DeviceTypeWords.Parse("99"));
        Assert.Null(DeviceTypeWords.Parse("toaster"));
        Assert.Null(DeviceTypeWords.Parse("0"));
    }

    private static Dictionary<string, int> Offsets(VirtioDeviceId device) =>
        DeviceConfigLayouts.Of(device)!.Rows.Where(row => row.Name != "-")
            .ToDictionary(row => row.Name, row => row.OffsetBits / 8);
}

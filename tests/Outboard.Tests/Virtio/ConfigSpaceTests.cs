// The configuration space as both sides see it.
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class ConfigSpaceTests
{
    private static readonly ConfigField s_capacity = new(0, 8);
    private static readonly ConfigField s_mode = new(8, 1, IsWritable: true);
    private static readonly ConfigField s_mac = new(10, 6);

    [Fact]
    public void A_device_sets_fields_and_a_driver_reads_bytes()
    {
        ConfigSpace space = new(16, s_mode);
        Assert.True(space.Set(s_capacity, 0x0102_0304_0506_0708));
        space.SetBytes(s_mac, [1, 2, 3]);
        byte[] bytes = new byte[16];
        space.Read(0, bytes);
        Assert.Equal([8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 0, 0, 0], bytes);
        Assert.Equal(0x0102_0304_0506_0708UL, space.Get(s_capacity));
        Assert.Equal(16, space.SizeBytes);
    }

    [Fact]
    public void The_generation_counts_changes_of_the_device_only()
    {
        ConfigSpace space = new(16, s_mode);
        Assert.Equal(0u, space.Generation);
        Assert.True(space.Set(s_capacity, 5));
        Assert.Equal(1u, space.Generation);
        Assert.False(space.Set(s_capacity, 5));
        Assert.Equal(1u, space.Generation);
        space.SetBytes(s_mac, [1]);
        Assert.Equal(2u, space.Generation);
        Assert.True(space.Write(8, [1]));
        Assert.Equal(2u, space.Generation);
    }

    [Theory]
    [InlineData(0u, 16)]
    [InlineData(0u, 300)]
    [InlineData(15u, 4)]
    [InlineData(16u, 4)]
    [InlineData(17u, 4)]
    [InlineData(uint.MaxValue, 4)]
    [InlineData(0x8000_0000u, 4)]
    public void Reads_beyond_the_end_are_zero(uint offset, int count)
    {
        ConfigSpace space = new(16);
        for (int i = 0; i < 16; i++)
        {
            space.Set(new ConfigField(i, 1), (ulong)i + 1);
        }

        byte[] bytes = [.. Enumerable.Repeat((byte)0xEE, count)];
        space.Read(offset, bytes);
        for (int i = 0; i < count; i++)
        {
            ulong at = (ulong)offset + (ulong)i;
            Assert.Equal(at < 16 ? (byte)(at + 1) : 0, bytes[i]);
        }
    }

    [Theory]
    [InlineData(8u, 1, true)]
    [InlineData(7u, 3, true)]
    [InlineData(0u, 16, true)]
    [InlineData(0u, 8, false)]
    [InlineData(9u, 7, false)]
    [InlineData(8u, 9, false)]
    [InlineData(16u, 0, false)]
    [InlineData(16u, 1, false)]
    [InlineData(uint.MaxValue, 1, false)]
    [InlineData(0x8000_0008u, 1, false)]
    public void A_driver_writes_writable_bytes_only(uint offset, int count, bool accepted)
    {
        ConfigSpace space = new(16, s_mode);
        byte[] source = [.. Enumerable.Repeat((byte)0xAB, count)];
        Assert.Equal(accepted, space.Write(offset, source));
        byte[] bytes = new byte[16];
        space.Read(0, bytes);
        for (int i = 0; i < 16; i++)
        {
            Assert.Equal(accepted && i == 8 ? 0xAB : 0, bytes[i]);
        }
    }

    [Fact]
    public void A_migration_writes_every_byte()
    {
        ConfigSpace space = new(4);
        Assert.False(space.Write(0, [1, 2, 3, 4]));
        Assert.True(space.Write(0, [1, 2, 3, 4], isMigration: true));
        Assert.False(space.Write(1, [1, 2, 3, 4], isMigration: true));
        Assert.Equal(0x0403_0201UL, space.Get(new ConfigField(0, 4)));
    }

    [Fact]
    public void A_driver_never_sees_half_of_a_field()
    {
        ConfigSpace space = new(8);
        using ManualResetEventSlim started = new();
        Thread writer = new(() =>
        {
            started.Set();
            for (ulong i = 0; i < 100_000; i++)
            {
                space.Set(s_capacity, i | (i << 32));
            }
        });
        writer.Start();
        started.Wait(TestContext.Current.CancellationToken);
        Span<byte> bytes = stackalloc byte[8];
        while (writer.IsAlive)
        {
            space.Read(0, bytes);
            Assert.Equal(BitConverter.ToUInt32(bytes), BitConverter.ToUInt32(bytes[4..]));
        }

        writer.Join();
    }
}

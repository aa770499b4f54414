// A device's state as it travels: what was altered, cut, lengthened or mixed up is refused, and changes nothing.
using System.Buffers.Binary;
using System.Security.Cryptography;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class DeviceStateTests
{
    [Fact]
    public void State_moves_from_device_to_device()
    {
        Counter source = new() { Value = 7 };
        Counter target = new() { Value = 1 };
        target.LoadState(source.SaveState());
        Assert.Equal(7UL, target.Value);
        target.LoadState(target.SaveState());
    }

    [Fact]
    public void Every_bit_counts()
    {
        byte[] stream = new Counter { Value = 7 }.SaveState();
        for (int bit = 0; bit < stream.Length * 8; bit++)
        {
            byte[] altered = [.. stream];
            altered[bit / 8] ^= (byte)(1 << (bit % 8));
            ExpectRefused(altered);
        }
    }

    [Fact]
    public void Every_byte_counts()
    {
        byte[] stream = new Counter { Value = 7 }.SaveState();
        for (int length = 0; length < stream.Length; length++)
        {
            ExpectRefused(stream[..length]);
            ExpectRefused(Seal(stream[..length]));
        }

        ExpectRefused([.. stream, 0]);
        ExpectRefused([.. stream, .. stream]);
    }

    [Theory]
    [InlineData(0, 'X')]
    [InlineData(8, 2)]
    [InlineData(10, 99)]
    public void Another_magic_version_or_device_is_refused_whatever_the_checksum(int offset, int value)
    {
        byte[] stream = new Counter().SaveState();
        stream[offset] = (byte)value;
        ExpectRefused(Seal(stream));
    }

    [Theory]
    [InlineData(uint.MaxValue)]
    [InlineData(0x7FFF_FFFF)]
    [InlineData(9)]
    [InlineData(7)]
    public void A_record_of_another_length_is_refused(uint length)
    {
        byte[] stream = new Counter().SaveState();
        BinaryPrimitives.WriteUInt32LittleEndian(stream.AsSpan(16 + 8), length);
        ExpectRefused(Seal(stream));
    }

    [Fact]
    public void A_record_that_comes_twice_is_refused() =>
        ExpectRefused(new Counter { Extra = "valu" }.SaveState());

    [Fact]
    public void An_unknown_record_is_refused_unless_it_may_be_ignored()
    {
        ExpectRefused(new Counter { Extra = "what" }.SaveState());
        new Counter().LoadState(new Counter { Extra = "what", IsExtraIgnorable = true }.SaveState());
    }

    [Fact]
    public void A_missing_record_and_a_value_out_of_range_are_refused()
    {
        ExpectRefused(new Counter { IsSilent = true }.SaveState());
        ExpectRefused(new Counter { Value = 1000 }.SaveState());
    }

    [Fact]
    public void Features_that_the_other_device_lacks_are_refused()
    {
        Counter source = new() { Features = 6 };
        source.AcceptFeatures(VirtioFeatures.Version1 | 2);
        byte[] stream = source.SaveState();
        ExpectRefused(stream);
        new Counter { Features = 2 }.LoadState(stream);
    }

    [Fact]
    public void Too_much_is_not_saved() =>
        Assert.Throws<DeviceStateException>(() => new Counter { Padding = DeviceStateFormat.MaxBytes }.SaveState());

    private static void ExpectRefused(byte[] stream)
    {
        Counter target = new() { Value = 42 };
        Assert.Throws<DeviceStateException>(() => target.LoadState(stream));
        Assert.Equal(42UL, target.Value);
    }

    /// <summary>Corrects length and checksum of a stream that was tampered with.</summary>
    private static byte[] Seal(byte[] stream)
    {
        if (stream.Length >= 48)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(stream.AsSpan(12), (uint)stream.Length);
            SHA256.HashData(stream.AsSpan(0, stream.Length - 32), stream.AsSpan(stream.Length - 32));
        }

        return stream;
    }

    private sealed class Counter() : VirtioDevice(VirtioDeviceId.Entropy, [16])
    {
        internal ulong Value { get; set; }

        internal ulong Features { get; set; }

        internal string? Extra { get; set; }

        internal bool IsExtraIgnorable { get; set; }

        internal bool IsSilent { get; set; }

        internal int Padding { get; set; }

        public override ulong DeviceFeatures => Features;

        protected override void OnSave(DeviceStateWriter writer)
        {
            if (!IsSilent)
            {
                writer.Write("valu", Value);
            }

            if (Extra is not null)
            {
                writer.Write(Extra, 1UL, IsExtraIgnorable);
            }

            if (Padding > 0)
            {
                writer.Write("padd", new byte[Padding]);
            }
        }

        protected override Action OnLoad(DeviceStateReader reader)
        {
            ulong value = reader.ReadNumber("valu", largest: 999);
            return () => Value = value;
        }
    }
}

// What a function is made of: configuration space, BARs, capabilities; and which of them cannot be.
using System.Buffers.Binary;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Interrupts;
using Xunit;

namespace Outboard.Tests.Pci;

public sealed class PciFunctionTests
{
    [Theory]
    [InlineData(PciBarKind.Memory32, 0x1000, false, 0xfffff000, 0)]
    [InlineData(PciBarKind.Memory32, 16, true, 0xfffffff8, 8)]
    [InlineData(PciBarKind.Memory32, 0x80000000, false, 0x80000000, 0)]
    [InlineData(PciBarKind.Io, 4, true, 0xfffffffd, 1)]
    [InlineData(PciBarKind.Io, 256, false, 0xffffff01, 1)]
    public async Task A_bar_tells_its_size_by_ones(
        PciBarKind kind, ulong size, bool prefetchable, uint expected, uint type)
    {
        TestFunction function = new();
        function.Add(new PciBar(1, kind, size, prefetchable));
        await function.WriteConfigAsync(0x14, new byte[] { 0xff, 0xff, 0xff, 0xff });
        Assert.Equal(expected, function.Config.Get32(0x14));
        await function.WriteConfigAsync(0x14, new byte[4]);
        Assert.Equal(type, function.Config.Get32(0x14));
    }

    [Theory]
    [InlineData(4UL << 30)]
    [InlineData(8UL << 30)]
    [InlineData(0x4000)]
    public async Task A_64_bit_bar_has_two_registers(ulong size)
    {
        TestFunction function = new();
        function.Add(new PciBar(2, PciBarKind.Memory64, size));
        await function.WriteConfigAsync(0x18, new byte[] { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff });
        ulong value = function.Config.Get32(0x18) | ((ulong)function.Config.Get32(0x1c) << 32);
        Assert.Equal(~(size - 1) | 4, value);
        Assert.Throws<ArgumentException>(() => function.Add(new PciBar(3, PciBarKind.Memory32, 16)));
        Assert.Throws<ArgumentException>(() => function.Add(new PciBar(2, PciBarKind.Memory32, 16)));
    }

    [Fact]
    public void Bars_that_cannot_be()
    {
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(6, PciBarKind.Memory32, 16));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(-1, PciBarKind.Memory32, 16));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(1, PciBarKind.Memory64, 16));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(0, PciBarKind.Memory32, 8));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(0, PciBarKind.Memory32, 24));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(0, PciBarKind.Memory32, 1UL << 32));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(0, PciBarKind.Io, 512));
        Assert.ThrowsAny<ArgumentException>(() => new PciBar(0, PciBarKind.Io, 2));
        TestFunction function = new();
        function.Add(new PciBar(3, PciBarKind.Memory32, 16));
        Assert.Throws<ArgumentException>(() => function.Add(new PciBar(2, PciBarKind.Memory64, 16)));
    }

    [Fact]
    public void Capabilities_are_placed_and_linked()
    {
        TestFunction function = new();
        function.Add(new PowerManagementCapability());
        function.Add(new VendorCapability([1, 2]));
        function.Add(new MsixCapability(5, 1, 0, 0x800), 0x80);
        function.Add(new SerialNumberCapability(1));
        function.Add(new ExtendedVendorCapability(7, 1, [9]));
        Assert.Equal(0x40, function.Config.Get8(0x34));
        Assert.Equal(0x10, function.Config.Get16(6));
        Assert.Equal([0x4801, 0x8009, 0x0011], [
            function.Config.Get16(0x40), function.Config.Get16(0x48), function.Config.Get16(0x80),
        ]);
        Assert.Equal(0x10c1_0003u, function.Config.Get32(0x100));
        Assert.Equal(0x0001_000bu, function.Config.Get32(0x10c));
        Assert.ThrowsAny<ArgumentException>(() => function.Add(new VendorCapability([]), 0x48));
        Assert.ThrowsAny<ArgumentException>(() => function.Add(new VendorCapability([]), 0x91));
        Assert.ThrowsAny<ArgumentException>(() => function.Add(new VendorCapability(new byte[32]), 0xf0));
    }

    /// <summary>Ones are written everywhere, also across fields: what is read-only stays, the rest is kept.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task What_is_read_only_in_capabilities_stays(int width)
    {
        TestFunction function = new();
        function.AddPin();
        int express = function.Add(new ExpressCapability()).Offset;
        int power = function.Add(new PowerManagementCapability()).Offset;
        int constant = function.Add(new VendorCapability([1, 2])).Offset;
        int open = function.Add(new VendorCapability([3, 4], isWritable: true)).Offset;
        int serial = function.Add(new SerialNumberCapability(0x1122334455667788)).Offset;
        int extended = function.Add(new ExtendedVendorCapability(7, 1, [5])).Offset;
        int openExtended = function.Add(new ExtendedVendorCapability(8, 2, [6], isWritable: true)).Offset;
        byte[] before = new byte[4096];
        function.ReadConfig(0, before);
        Assert.Equal(1, before[0x3d]);
        Assert.Equal(0x10, before[6] & 0x10);
        byte[] ones = [.. Enumerable.Repeat((byte)0xff, width)];
        for (int at = 0; at + width <= before.Length; at += width)
        {
            await function.WriteConfigAsync((uint)at, ones);
        }

        byte[] after = new byte[4096];
        function.ReadConfig(0, after);
        foreach ((int start, int bytes) in ((int, int)[])
            [(0, 4), (6, 4), (0x34, 1), (0x3d, 1), (express, 8), (express + 12, 4), (power, 4), (power + 6, 2),
                (constant, 5), (open, 3), (serial, 12), (extended, 9), (openExtended, 8)])
        {
            Assert.Equal(before[start..(start + bytes)], after[start..(start + bytes)]);
        }

        Assert.Equal([0x0b, 0], after[(power + 4)..(power + 6)]);
        Assert.Equal([0xff, 0xff], after[(open + 3)..(open + 5)]);
        Assert.Equal(0xff, after[openExtended + 8]);
        Assert.Equal([0xff, 0xff], after[(express + 40)..(express + 42)]);
        Assert.Equal([0xff, 0xff], after[(express + 48)..(express + 50)]);
        Assert.Equal(0, after[express + 9] & 0x80);
    }

    [Fact]
    public async Task More_msi_vectors_than_there_are_cannot_be_enabled()
    {
        TestFunction function = new();
        MsiCapability msi = function.Add(new MsiCapability(4));
        await function.WriteConfigAsync((uint)msi.Offset + 2, new byte[] { 0xff, 0xff });
        Assert.Equal(0x01a5, function.Config.Get16(msi.Offset + 2));
        await function.WriteConfigAsync((uint)msi.Offset, new byte[24]);
        Assert.Equal(0x0184, function.Config.Get16(msi.Offset + 2));
        Assert.Equal(5, function.Config.Get8(msi.Offset));
    }

    [Fact]
    public async Task A_reset_brings_the_configuration_back()
    {
        TestFunction function = new();
        function.Attach(Outboard.Pci.Dma.DmaSpace.None);
        await function.WriteConfigAsync(4, new byte[] { 7, 0 });
        await function.WriteConfigAsync(0x3c, new byte[] { 11 });
        await function.ResetAsync(PciResetKind.Device);
        Assert.Equal(0, function.Config.Get16(4));
        Assert.Equal(0, function.Config.Get8(0x3c));
    }

    /// <summary>An access may begin before the table, run through it and end behind the pending bits.</summary>
    [Fact]
    public async Task An_access_across_table_and_pending_bits_is_cut()
    {
        TestFunction function = new();
        PciBar bar = function.Add(new PciBar(0, PciBarKind.Memory32, 256));
        function.Add(new MsixCapability(2, 0, 0x40, 0x80));
        byte[] ones = [.. Enumerable.Repeat((byte)0xff, 256)];
        await function.WriteBarAtAsync(bar, 0, ones);
        byte[] read = new byte[256];
        function.ReadBarAt(bar, 0, read);
        Assert.Equal(ones[..0x4c], read[..0x4c]);
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32LittleEndian(read.AsSpan(0x4c)));
        Assert.Equal(ones[0x60..0x80], read[0x60..0x80]);
        Assert.Equal(new byte[8], read[0x80..0x88]);
        Assert.Equal(ones[0x88..], read[0x88..]);
        Assert.Equal((ulong.MaxValue, uint.MaxValue), function.Interrupts.Msix!.Table!.Message(1));
    }

    [Fact]
    public void Triggers_come_from_any_thread_while_lines_change()
    {
        TestFunction function = new();
        function.Add(new MsixCapability(1, 0, 0, 0x800));
        InterruptVectors vectors = function.Interrupts[InterruptKind.Msix];
        int signals = 0;
        int expected = 0;
        Parallel.For(0, 4, part =>
        {
            for (int i = 0; i < 2000; i++)
            {
                if (part == 0)
                {
                    vectors.Bind(0, new CountingLine(() => Interlocked.Increment(ref signals)));
                }
                else if (vectors.Trigger(0) == TriggerOutcome.Signalled)
                {
                    Interlocked.Increment(ref expected);
                }
            }
        });
        Assert.Equal(expected, signals);
        vectors.Bind(0, null);
        Assert.Equal(TriggerOutcome.NotBound, vectors.Trigger(0));
        Assert.Equal(TriggerOutcome.NoSuchVector, vectors.Trigger(1));
        Assert.Equal(TriggerOutcome.NoSuchVector, vectors.Trigger(-1));
    }

    private sealed class CountingLine(Action signal) : InterruptLine
    {
        private bool _isDisposed;

        public override void Signal()
        {
            Assert.False(_isDisposed);
            signal();
        }

        public override void Dispose() => _isDisposed = true;
    }

    private sealed class TestFunction() : PciFunction(new PciIdentity(1, 2), isExpress: true)
    {
        private readonly byte[] _bar = new byte[256];

        public PciBar Add(PciBar bar)
        {
            AddBar(bar);
            return bar;
        }

        public void AddPin() => AddInterruptPin();

        public T Add<T>(T capability, int offset = 0)
            where T : PciCapability => AddCapability(capability, offset);

        protected override void ReadBar(int bar, ulong offset, Span<byte> destination) =>
            _bar.AsSpan((int)offset, destination.Length).CopyTo(destination);

        protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
        {
            source.CopyTo(_bar.AsSpan((int)offset));
            return default;
        }
    }
}

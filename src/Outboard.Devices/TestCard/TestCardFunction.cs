// The PCI test card, version 1: a small PCI Express device in which every behaviour is written down, for authors of
// drivers and clients and for tests of protocols. Six BARs' worth of registers and memory, every kind of interrupt, a
// DMA engine, migration, and faults on request.
//
// DEVICE_RESET and FLR clear SCRATCH, the DMA registers, the memory of BAR0, BAR1, BAR2 and FAULT; counters, BAR4,
// BAR5, bound interrupts and windows of guest memory stay. Everything else stays also when a client goes.
using System.Buffers.Binary;
using System.Text;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Interrupts;

namespace Outboard.Devices.TestCard;

/// <summary>The PCI test card.</summary>
public sealed partial class TestCardFunction : PciFunction, IDisposable
{
    private const int RegistersBar = 0;
    private const int BufferBytes = 0x4000;
    private const uint PageBytes = 0x1000;

    private readonly Lock _lock = new();
    private readonly byte[] _bar0 = new byte[PageBytes];
    private readonly BarMemory _ports = new("test-card/bar1", 0x20);
    private readonly BarMemory _buffer = new("test-card/bar2", BufferBytes);
    private readonly BarMemory _large = new("test-card/bar4", 0x200000, offset: PageBytes);
    private readonly BarMemory _vectors = new("test-card/bar5", PageBytes);
    private readonly EventFd _eventA = new();
    private readonly EventFd _eventB = new();
    private readonly TestCardMigration _migration;
    private readonly bool _transfersLater;

    /// <summary>Creates the card.</summary>
    /// <param name="transfersLater">
    /// DMA takes place after the write that starts it was answered, as a client needs that cannot answer our messages
    /// while it waits (QEMU).
    /// </param>
    public TestCardFunction(bool transfersLater = false)
        : base(
            new PciIdentity(0xf00d, 0x7e57)
            {
                ClassCode = 0xff0000,
                SubsystemVendorId = 0xcafe,
                SubsystemId = 0xbabe,
            },
            isExpress: true)
    {
        _transfersLater = transfersLater;
        _migration = new TestCardMigration(this);
        AddBars();
        AddCapabilities();
        AddInterruptPin(isLevel: false);
        "VFUT"u8.CopyTo(_bar0);
        Put32(TestCardRegister.Version, 1);
        Put32(TestCardRegister.MigrationState, (uint)MigrationState.Running);
    }

    /// <inheritdoc/>
    public override PciMigration? Migration => _migration;

    /// <inheritdoc/>
    protected override bool ResetsConfig => false;

    /// <inheritdoc/>
    public void Dispose()
    {
        _ports.Dispose();
        _buffer.Dispose();
        _large.Dispose();
        _vectors.Dispose();
        _eventA.Dispose();
        _eventB.Dispose();
    }

    /// <inheritdoc/>
    protected override void ReadBar(int bar, ulong offset, Span<byte> destination)
    {
        lock (_lock)
        {
            Refresh();
            _bar0.AsSpan((int)offset, destination.Length).CopyTo(destination);
        }
    }

    /// <inheritdoc/>
    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
    {
        bool isFault = Covers(offset, source, TestCardRegister.Fault, sizeof(uint));
        if (!isFault && TakeFault(TestCardFaults.Write))
        {
            throw new PciAccessException(Errno.InputOutput);
        }

        lock (_lock)
        {
            Store(offset, source, TestCardRegister.Scratch, sizeof(ulong));
            Store(offset, source, TestCardRegister.DmaAddress, sizeof(ulong) + sizeof(uint));
            Store(offset, source, TestCardRegister.DmaBuffer, sizeof(uint));
            Store(offset, source, TestCardRegister.Memory, (int)PageBytes - TestCardRegister.Memory);
            if (isFault)
            {
                Store(offset, source, TestCardRegister.Fault, sizeof(uint));
            }

            if (Covers(offset, source, TestCardRegister.MigrationPath, sizeof(ulong)))
            {
                Put64(TestCardRegister.MigrationPath, 0);
            }

            Ring(offset, source);
        }

        if (TryGet32(offset, source, TestCardRegister.IrqTrigger, out uint trigger))
        {
            Trigger(trigger);
        }

        return TryGet32(offset, source, TestCardRegister.DmaCommand, out uint command) ? Transfer(command) : default;
    }

    /// <inheritdoc/>
    protected override ValueTask OnResetAsync(PciResetKind kind)
    {
        if (kind == PciResetKind.Device && TakeFault(TestCardFaults.Reset))
        {
            throw new PciAccessException(Errno.InputOutput);
        }

        lock (_lock)
        {
            _transfer++;
            Put64(TestCardRegister.Scratch, 0);
            _bar0.AsSpan(TestCardRegister.DmaAddress, 0x18).Clear();
            _bar0.AsSpan(TestCardRegister.Memory).Clear();
            Put32(TestCardRegister.Fault, 0);
            Count(kind == PciResetKind.Device ? TestCardRegister.ResetCount : TestCardRegister.FunctionResetCount);
            if (kind == PciResetKind.Device)
            {
                Put32(TestCardRegister.MigrationState, (uint)MigrationState.Running);
            }
        }

        _ports.Window.Span.Clear();
        _buffer.Window.Span.Clear();
        return default;
    }

    /// <inheritdoc/>
    protected override ValueTask OnDetachedAsync()
    {
        lock (_lock)
        {
            Count(TestCardRegister.LostCount);
        }

        return default;
    }

    private void AddBars()
    {
        AddBar(new PciBar(RegistersBar, PciBarKind.Memory32, PageBytes)
        {
            Doorbells =
            [
                new PciDoorbell(TestCardRegister.DoorbellA, sizeof(uint), _eventA),
                new PciDoorbell(
                    TestCardRegister.DoorbellMatch, sizeof(uint), _eventA, TestCardRegister.MatchValue),
                new PciDoorbell(TestCardRegister.DoorbellB, sizeof(ulong), _eventB),
            ],
        });
        AddBar(new PciBar(1, PciBarKind.Io, 0x20) { Memory = _ports });
        AddBar(new PciBar(2, PciBarKind.Memory64, BufferBytes, isPrefetchable: true)
        {
            Memory = _buffer,
            MappableAreas = [new BarArea(PageBytes, PageBytes), new BarArea(3 * PageBytes, PageBytes)],
        });
        AddBar(new PciBar(4, PciBarKind.Memory32, 0x200000)
        {
            Memory = _large,
            MappableAreas = [new BarArea(0, 0x200000)],
        });
        AddBar(new PciBar(5, PciBarKind.Memory32, PageBytes) { Memory = _vectors });
    }

    private void AddCapabilities()
    {
        AddCapability(new PowerManagementCapability(), 0x40);
        AddCapability(new MsiCapability(4), 0x48);
        AddCapability(new MsixCapability(8, 5, 0, 0x800, hasTable: false), 0x60);
        AddCapability(new ExpressCapability(), 0x70);
        AddCapability(new VendorCapability(Padded("vfut", 13), isWritable: true), 0xb0);
        AddCapability(new SerialNumberCapability(0x11223344_55667788), 0x100);
        AddCapability(new ExtendedVendorCapability(0x7e57, 1, Padded("vfut-ext", 24), isWritable: true), 0x110);
    }

    private static byte[] Padded(string text, int length)
    {
        byte[] bytes = new byte[length];
        Encoding.ASCII.GetBytes(text, bytes);
        return bytes;
    }

    private void Trigger(uint value)
    {
        uint kind = value >> 16;
        TriggerOutcome outcome = kind <= (uint)InterruptKind.Request
            ? Interrupts[(InterruptKind)kind].Trigger((int)(value & 0xffff))
            : TriggerOutcome.NoSuchVector;
        lock (_lock)
        {
            Put32(TestCardRegister.IrqStatus, outcome switch
            {
                TriggerOutcome.NotBound => Errno.NoEntry,
                TriggerOutcome.NoSuchVector => Errno.InvalidArgument,
                _ => 0u,
            });
        }
    }

    private void Ring(ulong offset, ReadOnlySpan<byte> source)
    {
        if (Covers(offset, source, TestCardRegister.DoorbellA, sizeof(uint)))
        {
            Count(TestCardRegister.CountA);
        }

        if (TryGet32(offset, source, TestCardRegister.DoorbellMatch, out uint value)
            && value == TestCardRegister.MatchValue)
        {
            Count(TestCardRegister.CountA);
        }

        if (Covers(offset, source, TestCardRegister.DoorbellB, sizeof(ulong)))
        {
            Count(TestCardRegister.CountB);
        }
    }

    /// <summary>Brings what is not kept in the registers up to date.</summary>
    private void Refresh()
    {
        Put32(TestCardRegister.CountA, Get32(TestCardRegister.CountA) + (uint)_eventA.Take());
        Put32(TestCardRegister.CountB, Get32(TestCardRegister.CountB) + (uint)_eventB.Take());
        Put32(TestCardRegister.DmaCount, (uint)Dma.WindowCount);
        for (int kind = 0; kind <= (int)InterruptKind.Msix; kind++)
        {
            InterruptVectors vectors = Interrupts[(InterruptKind)kind];
            uint masked = 0;
            for (int vector = 0; vector < vectors.Count; vector++)
            {
                masked |= vectors.IsMasked(vector) ? 1u << vector : 0;
            }

            Put32(TestCardRegister.MaskedIntx + (kind * sizeof(uint)), masked);
        }
    }

    private bool TakeFault(TestCardFaults fault)
    {
        lock (_lock)
        {
            uint faults = Get32(TestCardRegister.Fault);
            Put32(TestCardRegister.Fault, faults & ~(uint)fault);
            return (faults & (uint)fault) != 0;
        }
    }

    private void Store(ulong offset, ReadOnlySpan<byte> source, int start, int length)
    {
        int from = Math.Max((int)offset, start);
        int end = Math.Min((int)offset + source.Length, start + length);
        if (from < end)
        {
            source[(from - (int)offset)..(end - (int)offset)].CopyTo(_bar0.AsSpan(from));
        }
    }

    private static bool Covers(ulong offset, ReadOnlySpan<byte> source, int register, int width) =>
        (int)offset <= register && register + width <= (int)offset + source.Length;

    private static bool TryGet32(ulong offset, ReadOnlySpan<byte> source, int register, out uint value)
    {
        bool covers = Covers(offset, source, register, sizeof(uint));
        value = covers ? BinaryPrimitives.ReadUInt32LittleEndian(source[(register - (int)offset)..]) : 0;
        return covers;
    }

    private uint Get32(int register) => BinaryPrimitives.ReadUInt32LittleEndian(_bar0.AsSpan(register));

    private ulong Get64(int register) => BinaryPrimitives.ReadUInt64LittleEndian(_bar0.AsSpan(register));

    private void Put32(int register, uint value) =>
        BinaryPrimitives.WriteUInt32LittleEndian(_bar0.AsSpan(register), value);

    private void Put64(int register, ulong value) =>
        BinaryPrimitives.WriteUInt64LittleEndian(_bar0.AsSpan(register), value);

    private void Count(int register) => Put32(register, Get32(register) + 1);
}

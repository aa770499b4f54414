// A function that does what a test tells it: holds accesses up, asserts its pin, keeps memory.
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;

namespace Outboard.Tests.VfioUser;

internal sealed class FakeFunction : PciFunction
{
    public FakeFunction()
        : base(new PciIdentity(1, 2))
    {
        AddBar(new PciBar(0, PciBarKind.Memory32, 4096));
        AddCapability(new MsiCapability(2));
        AddCapability(new MsixCapability(3, 0, 0x800, 0xc00));
        AddRom(new ExpansionRom([0x55, 0xaa, 1, 2, 3]));
        AddInterruptPin();
    }

    /// <summary>What a write to BAR 0 waits for.</summary>
    public Task Hold { get; set; } = Task.CompletedTask;

    /// <summary>What an unmap waits for.</summary>
    public Task HoldMemory { get; set; } = Task.CompletedTask;

    public List<(int Regions, bool KeepsOld)> MemoryChanges { get; } = [];

    public int Writes { get; private set; }

    protected override bool UsesMemory => true;

    protected override async ValueTask OnMemoryChangedAsync(GuestMemory memory, bool keepsOldRegions)
    {
        MemoryChanges.Add((memory.Regions.Length, keepsOldRegions));
        if (!keepsOldRegions)
        {
            await HoldMemory;
        }
    }

    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
    {
        Writes++;
        return new ValueTask(Hold);
    }
}

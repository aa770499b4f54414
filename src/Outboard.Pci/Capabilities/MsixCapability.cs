// MSI-X: 2 control u16 (bits 0-10 table size less 1, 14 function mask, 15 enable), 4 table offset and BAR u32,
// 8 pending bits' offset and BAR u32.
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>The MSI-X capability.</summary>
public sealed class MsixCapability : PciCapability
{
    /// <summary>Bytes.</summary>
    public const int TotalBytes = 12;

    private const int ControlOffset = 2;
    private const int MaxVectors = 2048;
    private const ushort FunctionMask = 1 << 14;
    private const ushort Enable = 1 << 15;

    /// <summary>Creates the capability.</summary>
    /// <param name="vectorCount">1 to 2048.</param>
    /// <param name="bar">The BAR of table and pending bits.</param>
    /// <param name="tableOffset">Offset of the table in that BAR; a multiple of 8.</param>
    /// <param name="pendingOffset">Offset of the pending bits in that BAR; a multiple of 8.</param>
    /// <param name="hasTable">
    /// Whether the function keeps table and pending bits; without, what lies there in the BAR is the device's affair.
    /// </param>
    public MsixCapability(int vectorCount, int bar, uint tableOffset, uint pendingOffset, bool hasTable = true)
        : base(PciCapabilityId.Msix, TotalBytes)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(vectorCount, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(vectorCount, MaxVectors);
        ArgumentOutOfRangeException.ThrowIfNotEqual(tableOffset % 8, 0u);
        ArgumentOutOfRangeException.ThrowIfNotEqual(pendingOffset % 8, 0u);
        VectorCount = vectorCount;
        Bar = bar;
        TableOffset = tableOffset;
        PendingOffset = pendingOffset;
        Table = hasTable ? new MsixTable(vectorCount) : null;
        Field(ControlOffset, sizeof(ushort), (ulong)(vectorCount - 1), FunctionMask | Enable);
        Field(4, sizeof(uint), tableOffset | (uint)bar);
        Field(8, sizeof(uint), pendingOffset | (uint)bar);
    }

    /// <summary>Number of vectors.</summary>
    public int VectorCount { get; }

    /// <summary>The BAR of table and pending bits.</summary>
    public int Bar { get; }

    /// <summary>Offset of the table.</summary>
    public uint TableOffset { get; }

    /// <summary>Offset of the pending bits.</summary>
    public uint PendingOffset { get; }

    /// <summary>Table and pending bits; null when the device keeps them itself.</summary>
    public MsixTable? Table { get; }

    internal bool IsEnabled(PciConfigSpace config) => (config.Get16(Offset + ControlOffset) & Enable) != 0;

    internal bool IsMasked(PciConfigSpace config, int vector)
    {
        const ushort both = FunctionMask | Enable;
        return (config.Get16(Offset + ControlOffset) & both) == both || (Table is { } table && table.IsMasked(vector));
    }
}

// MSI, with 64-bit address: 2 control u16, 4 address u32, 8 upper address u32, 12 data u16, and with masks 16 mask u32,
// 20 pending u32. A guest that asks for more vectors than there are gets the largest possible number.
using System.Numerics;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>The MSI capability.</summary>
public sealed class MsiCapability : PciCapability
{
    private const int ControlOffset = 2;
    private const int MaskOffset = 16;
    private const int PendingOffset = 20;
    private const int MaxVectors = 32;
    private const ushort Enable = 1;
    private const ushort Address64 = 1 << 7;
    private const ushort Masks = 1 << 8;
    private const int MultipleEnableShift = 4;
    private const ushort MultipleEnableMask = 7 << MultipleEnableShift;

    private readonly int _log;

    /// <summary>Creates the capability.</summary>
    /// <param name="vectorCount">A power of two from 1 to 32.</param>
    /// <param name="hasMasks">Whether each vector has a mask bit.</param>
    public MsiCapability(int vectorCount, bool hasMasks = true)
        : base(PciCapabilityId.Msi, hasMasks ? 24 : 14)
    {
        if (!BitOperations.IsPow2(vectorCount) || vectorCount > MaxVectors)
        {
            throw new ArgumentOutOfRangeException(nameof(vectorCount), vectorCount, "a power of two from 1 to 32");
        }

        VectorCount = vectorCount;
        HasMasks = hasMasks;
        _log = BitOperations.Log2((uint)vectorCount);
        uint control = Address64 | (hasMasks ? Masks : 0u) | (uint)(_log << 1);
        Field(ControlOffset, sizeof(ushort), control, (uint)Enable | MultipleEnableMask);
        Field(4, sizeof(uint), 0, 0xffff_fffc);
        Field(8, sizeof(uint), 0, uint.MaxValue);
        Field(12, sizeof(ushort), 0, ushort.MaxValue);
        if (hasMasks)
        {
            ulong vectors = (1UL << vectorCount) - 1;
            Field(MaskOffset, sizeof(uint), 0, vectors);
        }
    }

    /// <summary>Number of vectors.</summary>
    public int VectorCount { get; }

    /// <summary>Whether each vector has a mask bit.</summary>
    public bool HasMasks { get; }

    /// <summary>Whether a guest enabled it.</summary>
    internal bool IsEnabled(PciConfigSpace config) => (config.Get16(Offset + ControlOffset) & Enable) != 0;

    internal bool IsMasked(PciConfigSpace config, int vector) =>
        (config.Get32(Offset + MaskOffset) >> vector & 1) != 0;

    internal void SetPending(PciConfigSpace config, int vector, bool pending)
    {
        uint bits = config.Get32(Offset + PendingOffset);
        bits = pending ? bits | (1u << vector) : bits & ~(1u << vector);
        config.Set(Offset + PendingOffset, bits, sizeof(uint));
    }

    /// <summary>Holds the number of enabled vectors at what there are.</summary>
    internal void OnWritten(PciConfigSpace config)
    {
        ushort control = config.Get16(Offset + ControlOffset);
        if ((control & MultipleEnableMask) >> MultipleEnableShift > _log)
        {
            config.Change16(
                Offset + ControlOffset, (ushort)(_log << MultipleEnableShift), MultipleEnableMask);
        }
    }
}

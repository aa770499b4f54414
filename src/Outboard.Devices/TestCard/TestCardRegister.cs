// The registers in BAR0 of the test card: offsets; widths in bytes behind each. Writes to those that are only read are
// ignored. A register's effect takes place when one write covers all of its bytes.
namespace Outboard.Devices.TestCard;

/// <summary>Registers of the test card.</summary>
public static class TestCardRegister
{
    /// <summary>"VFUT", 4, read-only.</summary>
    public const int Id = 0x000;

    /// <summary>1, 4, read-only.</summary>
    public const int Version = 0x004;

    /// <summary>Anything, 8; migrates.</summary>
    public const int Scratch = 0x008;

    /// <summary>Kind in the upper half, vector in the lower, 4: raises that interrupt. Reads 0.</summary>
    public const int IrqTrigger = 0x010;

    /// <summary>Result of the last trigger, 4, read-only: 0, ENOENT or EINVAL.</summary>
    public const int IrqStatus = 0x014;

    /// <summary>Masked vectors of INTx, 4, read-only; MSI and MSI-X follow.</summary>
    public const int MaskedIntx = 0x018;

    /// <summary>DEVICE_RESETs, 4, read-only.</summary>
    public const int ResetCount = 0x028;

    /// <summary>Clients that have gone, 4, read-only.</summary>
    public const int LostCount = 0x02c;

    /// <summary>Function level resets, 4, read-only.</summary>
    public const int FunctionResetCount = 0x030;

    /// <summary>Windows of guest memory, 4, read-only.</summary>
    public const int DmaCount = 0x034;

    /// <summary>Guest address of a transfer, 8.</summary>
    public const int DmaAddress = 0x040;

    /// <summary>Bytes of a transfer, 4.</summary>
    public const int DmaLength = 0x048;

    /// <summary>1 reads guest memory, 2 writes it, bit 8: by messages; 4. Reads 0.</summary>
    public const int DmaCommand = 0x04c;

    /// <summary>0, an error number, or all ones while a transfer runs; 4, read-only.</summary>
    public const int DmaStatus = 0x050;

    /// <summary>Offset in BAR2, 4.</summary>
    public const int DmaBuffer = 0x054;

    /// <summary>Doorbell of event A, 4. Reads 0.</summary>
    public const int DoorbellA = 0x100;

    /// <summary>Doorbell of event A for one value only, 4. Reads 0.</summary>
    public const int DoorbellMatch = 0x104;

    /// <summary>Doorbell of event B, 8. Reads 0.</summary>
    public const int DoorbellB = 0x108;

    /// <summary>Rings of event A, 4, read-only.</summary>
    public const int CountA = 0x110;

    /// <summary>Rings of event B, 4, read-only.</summary>
    public const int CountB = 0x114;

    /// <summary>Migration state, 4, read-only.</summary>
    public const int MigrationState = 0x120;

    /// <summary>What fails next, 4: <see cref="TestCardFaults"/>.</summary>
    public const int Fault = 0x124;

    /// <summary>Migration states that were entered, the newest in the low 4 bits, 8; a write clears.</summary>
    public const int MigrationPath = 0x128;

    /// <summary>From here to the end: memory.</summary>
    public const int Memory = 0x200;

    /// <summary>The value that <see cref="DoorbellMatch"/> wants.</summary>
    public const uint MatchValue = 0xcafe;
}

/// <summary>What fails next; each bit clears when it has fired.</summary>
[Flags]
public enum TestCardFaults : uint
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>A step between migration states.</summary>
    Transition = 1,

    /// <summary>Reading the migration stream.</summary>
    StreamRead = 2,

    /// <summary>Writing the migration stream.</summary>
    StreamWrite = 4,

    /// <summary>A write to BAR0 (but not to FAULT).</summary>
    Write = 8,

    /// <summary>A DEVICE_RESET.</summary>
    Reset = 16,
}

// The controller's registers: offsets in BAR 0, and the bits that this controller gives a meaning.
// Not here: the controller memory buffer, boot partitions, persistent memory, subsystem reset.
namespace Outboard.Devices.Nvme.Spec;

/// <summary>Register offsets.</summary>
internal static class NvmeRegister
{
    internal const int Capabilities = 0x00;
    internal const int Version = 0x08;
    internal const int InterruptMaskSet = 0x0c;
    internal const int InterruptMaskClear = 0x10;
    internal const int Configuration = 0x14;
    internal const int Status = 0x1c;
    internal const int AdminQueueAttributes = 0x24;
    internal const int AdminSubmissionQueue = 0x28;
    internal const int AdminCompletionQueue = 0x30;

    /// <summary>Bytes of registers that can be other than zero.</summary>
    internal const int Bytes = 0x40;

    /// <summary>Where doorbells begin: submission and completion queue in turns.</summary>
    internal const int Doorbells = 0x1000;

    /// <summary>Version 1.4.</summary>
    internal const uint Version14 = 0x00010400;
}

/// <summary>Fields of the configuration register (CC).</summary>
internal readonly record struct NvmeConfiguration(uint Value)
{
    internal const uint EnableBit = 1;

    /// <summary>Bits that a driver may write.</summary>
    internal const uint Writable = 0x00fffff1;

    internal bool IsEnabled => (Value & EnableBit) != 0;

    internal uint CommandSet => (Value >> 4) & 7;

    /// <summary>Bytes of a memory page.</summary>
    internal int PageBytes => 1 << (int)(12 + ((Value >> 7) & 0xf));

    internal uint Arbitration => (Value >> 11) & 7;

    /// <summary>0 none, 1 normal, 2 abrupt.</summary>
    internal uint Shutdown => (Value >> 14) & 3;

    internal uint SubmissionEntryShift => (Value >> 16) & 0xf;

    internal uint CompletionEntryShift => (Value >> 20) & 0xf;
}

/// <summary>Bits of the status register (CSTS).</summary>
[Flags]
internal enum NvmeControllerStatus : uint
{
    None = 0,
    Ready = 1,
    Fatal = 2,
    ShutdownOccurring = 1 << 2,
    ShutdownComplete = 2 << 2,
    ShutdownMask = 3 << 2,
}

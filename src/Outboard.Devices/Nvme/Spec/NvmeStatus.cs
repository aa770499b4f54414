// What becomes of a command: code (bits 0-7) and code type (bits 8-10), as they stand in the status field of a
// completion; bit 14 says that the same command would fail again.
namespace Outboard.Devices.Nvme.Spec;

/// <summary>Status codes that this controller gives.</summary>
internal enum NvmeStatus : ushort
{
    Success = 0x000,
    InvalidOpcode = 0x001,
    InvalidField = 0x002,
    DataTransferError = 0x004,
    InternalError = 0x006,
    AbortRequested = 0x007,
    AbortedByQueueDeletion = 0x008,
    InvalidNamespace = 0x00b,
    CommandSequenceError = 0x00c,
    InvalidSglSegment = 0x00d,
    InvalidSglCount = 0x00e,
    DataSglLengthInvalid = 0x00f,
    SglTypeInvalid = 0x011,
    PrpOffsetInvalid = 0x013,
    WriteProtected = 0x020,
    LbaOutOfRange = 0x080,
    CapacityExceeded = 0x081,

    CompletionQueueInvalid = 0x100,
    InvalidQueueIdentifier = 0x101,
    InvalidQueueSize = 0x102,
    EventRequestLimitExceeded = 0x105,
    InvalidInterruptVector = 0x108,
    InvalidLogPage = 0x109,
    InvalidQueueDeletion = 0x10c,
    FeatureNotSaveable = 0x10d,
    FeatureNotChangeable = 0x10e,

    WriteFault = 0x280,
    UnrecoveredReadError = 0x281,
    CompareFailure = 0x285,

    /// <summary>Not a status: the command goes on.</summary>
    Pending = 0xffff,
}

internal static class NvmeStatusRules
{
    internal const ushort CodeMask = 0x7ff;
    internal const ushort DoNotRetry = 1 << 14;

    /// <summary>The 15 bits of a completion's status field.</summary>
    internal static ushort Field(NvmeStatus status) => status switch
    {
        NvmeStatus.Success => 0,
        // Host trouble and what a reset cut short may go better the next time; the driver's own mistakes do not.
        NvmeStatus.DataTransferError or NvmeStatus.InternalError or NvmeStatus.AbortRequested
            or NvmeStatus.AbortedByQueueDeletion or NvmeStatus.WriteFault or NvmeStatus.UnrecoveredReadError
            => (ushort)status,
        _ => (ushort)((ushort)status | DoNotRetry),
    };
}

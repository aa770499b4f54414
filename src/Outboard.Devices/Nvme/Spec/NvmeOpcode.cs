// Numbers of commands, of what identify returns, of features, of log pages and of events: those that are served.
namespace Outboard.Devices.Nvme.Spec;

/// <summary>Admin commands.</summary>
internal enum NvmeAdminOpcode : byte
{
    DeleteSubmissionQueue = 0x00,
    CreateSubmissionQueue = 0x01,
    GetLogPage = 0x02,
    DeleteCompletionQueue = 0x04,
    CreateCompletionQueue = 0x05,
    Identify = 0x06,
    Abort = 0x08,
    SetFeatures = 0x09,
    GetFeatures = 0x0a,
    AsynchronousEventRequest = 0x0c,
    DoorbellBufferConfig = 0x7c,
}

/// <summary>Commands of the NVM command set.</summary>
internal enum NvmeIoOpcode : byte
{
    Flush = 0x00,
    Write = 0x01,
    Read = 0x02,
    Compare = 0x05,
    WriteZeroes = 0x08,
    DatasetManagement = 0x09,
}

/// <summary>What identify returns (CNS).</summary>
internal enum NvmeIdentify : byte
{
    Namespace = 0x00,
    Controller = 0x01,
    ActiveNamespaces = 0x02,
    NamespaceDescriptors = 0x03,
    CommandSetNamespace = 0x05,
    CommandSetController = 0x06,
}

/// <summary>Features.</summary>
internal enum NvmeFeature : byte
{
    Arbitration = 0x01,
    PowerManagement = 0x02,
    TemperatureThreshold = 0x04,
    ErrorRecovery = 0x05,
    VolatileWriteCache = 0x06,
    QueueCount = 0x07,
    InterruptCoalescing = 0x08,
    InterruptVector = 0x09,
    WriteAtomicity = 0x0a,
    EventConfiguration = 0x0b,
}

/// <summary>Log pages.</summary>
internal enum NvmeLogPage : byte
{
    Errors = 0x01,
    Health = 0x02,
    Firmware = 0x03,
    ChangedNamespaces = 0x04,
    CommandEffects = 0x05,
}

/// <summary>
/// Events, as the result of an asynchronous event request has them: bits 0-2 type, 8-15 information, 16-23 log page.
/// </summary>
internal enum NvmeEvent : uint
{
    InvalidDoorbellRegister = 0x010000,
    InvalidDoorbellValue = 0x010100,
    NamespaceChanged = 0x040002,
}

// The words of asynchronous file I/O: what is asked, what comes back, which engine does it.
namespace Outboard.Linux.Files;

/// <summary>What a file I/O engine is asked to do.</summary>
public enum FileOperation
{
    /// <summary>Read into segments.</summary>
    Read,

    /// <summary>Write from segments.</summary>
    Write,

    /// <summary>fdatasync: everything that completed before is on stable storage afterwards.</summary>
    DataSync,

    /// <summary>fallocate: reserve, zero or punch a range.</summary>
    Allocate,
}

/// <summary>The <c>mode</c> of fallocate(2).</summary>
[Flags]
public enum AllocateMode
{
    /// <summary>Reserve space, growing the file where the range ends behind it.</summary>
    None = 0,

    /// <summary>FALLOC_FL_KEEP_SIZE.</summary>
    KeepSize = 1,

    /// <summary>FALLOC_FL_PUNCH_HOLE; needs <see cref="KeepSize"/>. The range reads as zeroes and takes no
    /// space.</summary>
    PunchHole = 2,

    /// <summary>FALLOC_FL_ZERO_RANGE. The range reads as zeroes and keeps its space.</summary>
    ZeroRange = 0x10,
}

/// <summary>One completed operation.</summary>
/// <param name="Tag">What the caller gave with the operation.</param>
/// <param name="Result">Bytes moved (0 for an operation without data), or the negative errno.</param>
public readonly record struct FileCompletion(ulong Tag, int Result);

/// <summary>Which engine to create.</summary>
public enum FileIoEngineKind
{
    /// <summary>io_uring where the system allows it, otherwise threads.</summary>
    Automatic,

    /// <summary>io_uring or an exception that names the reason and the remedy.</summary>
    IoUring,

    /// <summary>A few blocking threads.</summary>
    Threads,
}

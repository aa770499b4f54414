// What happens when a peer truncates a file that this process has mapped: the kernel raises SIGBUS at the next touch of
// a page that is gone. This guard keeps the process alive: the page is replaced by a private page of zeroes, the fault
// is counted, and whoever works with the mapping finds out by HasFaulted and gives the device up.
// Not here: the table and the handler's installation (BusErrorTable), its instructions (BusErrorHandlerCode).
namespace Outboard.Linux.Memory;

/// <summary>Protects one mapped range against SIGBUS.</summary>
internal sealed class BusErrorGuard : IDisposable
{
    private readonly int _entry;
    private ulong _finalCount;
    private bool _disposed;

    private BusErrorGuard(int entry) => _entry = entry;

    /// <summary>Whether a page of the range faulted.</summary>
    internal bool HasFaulted => FaultCount != 0;

    /// <summary>Faults so far: pages that were replaced.</summary>
    internal ulong FaultCount => _disposed ? _finalCount : BusErrorTable.FaultsOf(_entry);

    /// <summary>Protects the range.</summary>
    /// <param name="address">A page boundary.</param>
    /// <param name="length">A multiple of the page size.</param>
    /// <param name="pageSize">The size of the pages that are mapped there: huge on hugetlbfs.</param>
    /// <returns>Null where this machine offers no way: another architecture than x64 and arm64, no executable memory,
    /// or a table that is full. A fault in the range then ends the process, as it does without this class.</returns>
    internal static BusErrorGuard? TryProtect(nuint address, nuint length, nuint pageSize)
    {
        int entry = BusErrorTable.Add(address, length, pageSize);
        return entry >= 0 ? new BusErrorGuard(entry) : null;
    }

    /// <summary>Ends the protection. To be called before the range is unmapped.</summary>
    public void Dispose()
    {
        if (!_disposed)
        {
            _finalCount = BusErrorTable.FaultsOf(_entry);
            _disposed = true;
            BusErrorTable.Remove(_entry);
        }
    }
}

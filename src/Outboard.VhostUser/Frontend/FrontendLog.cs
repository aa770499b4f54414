// The dirty log as a front-end keeps it: it makes the bitmap, gives it to the back-end, and harvests what that marks.
using Outboard.Linux.Events;
using Outboard.Memory;

namespace Outboard.VhostUser.Frontend;

/// <summary>A dirty log that a back-end marks. Dispose it when the back-end logs no more.</summary>
public sealed class FrontendLog : IDisposable
{
    private readonly DirtyLog _log;

    /// <summary>Takes ownership of the shared memory, all of which is the bitmap.</summary>
    /// <param name="memory">The bitmap, all zeroes.</param>
    /// <param name="sizeBytes">Its size.</param>
    public FrontendLog(SharedMemory memory, ulong sizeBytes)
    {
        ArgumentNullException.ThrowIfNull(memory);
        Memory = memory;
        _log = new DirtyLog(memory.Map(0, sizeBytes));
    }

    /// <summary>The bitmap, to be passed to a back-end.</summary>
    public SharedMemory Memory { get; }

    /// <summary>Bytes of the bitmap.</summary>
    public ulong SizeBytes => _log.SizeBytes;

    /// <summary>Signalled by the back-end after it marked pages; only when it was asked to.</summary>
    public EventFd? Marked { get; internal set; }

    /// <summary>
    /// Takes all marks. The pages must be copied after this call: what a device writes meanwhile is marked again.
    /// </summary>
    /// <returns>Numbers of pages of <see cref="DirtyLog.PageBytes"/>, in order.</returns>
    public IReadOnlyList<ulong> Harvest()
    {
        List<ulong> pages = [];
        _log.Harvest(pages);
        return pages;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _log.Dispose();
        Memory.Dispose();
        Marked?.Dispose();
    }
}

// What a migration wants of a worker: that it holds still, and that what it writes to guest memory is marked.
//
// A worker that is halted takes no command and holds none: what was in flight has been completed, and the completions
// are in the rings. Marks: data when the disk is done, before the completion is written; entries and doorbell events
// right after they are written. Nobody harvests for the last time before the worker is halted, and from then on it asks
// for no doorbells either: those events are guest memory, too.
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.Devices.Nvme;

internal sealed partial class NvmeWorker
{
    private readonly List<TaskCompletionSource> _halting = [];
    private DirtyLog? _log;
    private HostAddressMap? _hosts;
    private int _hostHint;
    private bool _isHalted;

    /// <summary>Whether the worker is halted, and nothing is in flight: it writes nothing.</summary>
    internal bool HoldsStill => _isHalted && _halting.Count == 0;

    /// <summary>Takes no more commands. When the task ends none is in flight.</summary>
    internal async Task HaltAsync()
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await InvokeAsync(() =>
        {
            _isHalted = true;
            _halting.Add(done);
        }).ConfigureAwait(false);
        await WhileAliveAsync(done.Task).ConfigureAwait(false);
    }

    /// <summary>Takes commands again.</summary>
    internal Task ResumeAsync() => InvokeAsync(() => _isHalted = false);

    /// <summary>Marks what is written from now on, or no more.</summary>
    internal Task LogAsync(DirtyLog? log) => InvokeAsync(() =>
    {
        _log = log;
        Shadow.Written = log is null ? null : address => Mark(address, sizeof(uint));
        MapHosts();
    });

    // What follows is used by the worker's thread.

    /// <summary>Marks what was written to a range.</summary>
    internal void Mark(ulong address, uint length)
    {
        if (_log is { } log)
        {
            DirtyLog.Fence();
            log.Mark(address, length);
        }
    }

    /// <summary>Marks what was written to mapped memory.</summary>
    internal void Mark(ReadOnlySpan<IoSegment> segments)
    {
        if (_log is not { } log)
        {
            return;
        }

        DirtyLog.Fence();
        foreach (ref readonly IoSegment segment in segments)
        {
            if (_hosts!.TryFind(in segment, ref _hostHint, out ulong address))
            {
                log.Mark(address, (ulong)segment.Length);
            }
        }
    }

    private void MapHosts()
    {
        _hosts = _log is null ? null : new HostAddressMap(Memory);
        _hostHint = 0;
    }

    private void TendHalt()
    {
        if (_halting.Count == 0 || (!_hasFailed && IsBusy()))
        {
            return;
        }

        _halting.ForEach(done => done.SetResult());
        _halting.Clear();
    }

    private bool IsBusy() =>
        _submissions.Exists(queue => queue.IsBusy) || _completions.Exists(queue => queue.IsBusy);
}

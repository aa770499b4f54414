// How a submission queue ends: its commands are waited for (the driver deletes it), or forgotten (the controller is
// reset). In both cases nothing touches guest memory or the disk's buffers when it is over: file operations are
// cancelled, and those that cannot be are waited for.
namespace Outboard.Devices.Nvme.Queues;

internal sealed partial class SubmissionQueue
{
    private readonly List<TaskCompletionSource> _stopping = [];

    /// <summary>Whether no command is taken any more.</summary>
    internal bool IsStopping { get; private set; }

    /// <summary>Whether commands in flight are forgotten.</summary>
    internal bool IsDiscarding { get; private set; }

    /// <summary>Whether it is over: whatever comes back late is dropped.</summary>
    internal bool IsStopped { get; private set; }

    /// <summary>Begins to stop. A reset overtakes a deletion.</summary>
    internal void BeginStop(bool discard, TaskCompletionSource stopped)
    {
        if (IsStopped)
        {
            stopped.SetResult();
            return;
        }

        IsStopping = true;
        IsDiscarding |= discard;
        _stopping.Add(stopped);
    }

    /// <summary>Looks whether the queue can end now.</summary>
    /// <returns>Whether it has ended.</returns>
    internal bool TryEnd()
    {
        if (!IsStopping)
        {
            return false;
        }

        if (IsDiscarding ? !TryLetGo() : InFlight > 0 || _isFetching)
        {
            return false;
        }

        IsStopped = true;
        while (InFlight > 0)
        {
            // Given up: what a disk holds back for later is never started.
            _free[_freeCount++] = 0;
            _completions.Unreserve();
        }

        Dispose();
        foreach (TaskCompletionSource stopped in _stopping)
        {
            stopped.SetResult();
        }

        return true;
    }

    /// <summary>Closes the disks. Nothing is in flight.</summary>
    public void Dispose()
    {
        foreach (DiskChannel channel in _channels)
        {
            channel.Dispose();
        }

        _segments.Dispose();
    }

    private bool TryLetGo()
    {
        bool isBusy = false;
        foreach (DiskChannel channel in _channels)
        {
            isBusy |= channel.CancelFileOperations();
        }

        if (isBusy)
        {
            return false;
        }

        CancelTasks();
        return _tasks == 0 && !_isFetching;
    }
}

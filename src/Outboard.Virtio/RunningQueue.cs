// One ring that is being served: the handle by which a transport changes and stops it. Every change is carried out on
// the queue's thread; the returned task completes when the change is in force.
using System.Diagnostics;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio;

/// <summary>What becomes of a ring's requests in flight when it is stopped.</summary>
public enum QueueStop
{
    /// <summary>They are waited for.</summary>
    Drain,

    /// <summary>They are left in the in-flight region, for whoever serves the ring next.</summary>
    Suspend,

    /// <summary>They are forgotten, as a reset does.</summary>
    Discard,
}

/// <summary>A ring that is being served.</summary>
public sealed partial class RunningQueue
{
    /// <summary>Chains taken before other queues of the same thread get their turn.</summary>
    private const int DrainLimit = 256;

    private readonly QueueWorker _worker;
    private readonly QueueLinks _links;
    private readonly Virtqueue _queue;
    private readonly QueueContext _context;
    private readonly GuardedHandler _handler;

    private Notifier? _call;
    private CallPacing _pacing;
    private int _servedBefore;
    private bool _started;
    private bool _enabled;
    private bool _parked;
    private bool _isStopped;
    private TaskCompletionSource<uint>? _stopping;
    private QueueStop _stop;
    private (GuestMemory Memory, VringAddresses? Moved, TaskCompletionSource<bool> Done)? _adopting;

    internal RunningQueue(QueueWorker worker, VirtioDevice device, Virtqueue queue, QueueLinks links, uint id)
    {
        _worker = worker;
        _queue = queue;
        _links = links;
        _call = links.Call;
        _started = links.IsStarted || IsPolled;
        _enabled = links.IsEnabled;
        Id = id;
        queue.RemoteCompletion = CompleteFromAfar;
        queue.IsAsleep = true;
        queue.Awaken = () => _worker.Activate(this);
        queue.Untranslated = misses => _links.Untranslated?.Invoke(this, misses);
        queue.AccessFailed = miss => _links.AccessFailed?.Invoke(Index, miss);
        _context = new QueueContext(queue, worker, this, Post);
        try
        {
            _handler = new GuardedHandler(device.CreateHandler(_context), OnFailure);
        }
        catch
        {
            _context.EndWatches();
            throw;
        }

        TellEnabled();
        queue.AskForTranslations();
    }

    /// <summary>The queue's index in its device.</summary>
    public int Index => _queue.Index;

    /// <summary>Requests that were in flight when the queue was stopped without waiting for them.</summary>
    public int LeftInFlight { get; private set; }

    /// <summary>Whether this program broke while it served this queue.</summary>
    internal bool HasFailed => _handler.HasFailed;

    /// <summary>Whether a kick (or what counts as one) was seen. Stays when the queue is stopped.</summary>
    public bool IsStarted => Volatile.Read(ref _started);

    /// <summary>The worker's number for this queue.</summary>
    internal uint Id { get; }

    /// <summary>Whether the worker is looking at this queue, instead of waiting for a kick.</summary>
    internal bool IsActive
    {
        get => !_queue.IsAsleep;
        set => _queue.IsAsleep = !value;
    }

    /// <summary>
    /// Whether nobody will wake the worker for this queue: the driver never kicks, or a backlog waits for room that no
    /// file operation makes.
    /// </summary>
    internal bool MustPoll =>
        (_handler.HasBacklog && !_worker.HasFileOperations && !IsLettingGo)
        || (IsPolled && CanServe && _handler.WantsChains);

    /// <summary>Whether a backlog waits for the end of file operations.</summary>
    internal bool WaitsForRoom => _handler.HasBacklog && !IsLettingGo;

    internal Notifier? Kick => _links.Kick;

    /// <summary>Whether requests in flight are not waited for, but only those who may touch their memory.</summary>
    private bool IsLettingGo => _stopping is not null && (_stop != QueueStop.Drain || HasFailed);

    private bool IsPolled => _links.Kick?.Waitable is null && !_links.IsKickedByMessage;

    private bool CanServe =>
        _started && _enabled && !_parked && _stopping is null && _adopting is null && _withdrawing is null;

    /// <summary>Enables or disables the ring. A disabled ring keeps its requests.</summary>
    public Task EnableAsync(bool enabled) => _worker.InvokeAsync(() =>
    {
        _enabled = enabled;
        TellEnabled();
        _worker.Activate(this);
    });

    /// <summary>Where the device stands at the moment, as <see cref="VringSetup.Base"/>.</summary>
    public async Task<uint> GetBaseAsync()
    {
        uint position = 0;
        await _worker.InvokeAsync(() => position = _queue.Base).ConfigureAwait(false);
        return position;
    }

    /// <summary>Starts the ring as a kick does.</summary>
    public Task StartAsync() => _worker.InvokeAsync(OnKick);

    /// <summary>Replaces the call notifier. When the task is done the old one is signalled no more.</summary>
    /// <remarks>The new one is signalled once, so that nothing is lost between the two.</remarks>
    public Task ReplaceCallAsync(Notifier? call) => _worker.InvokeAsync(() =>
    {
        _call?.Dispose();
        _call = call;
        if (_isStopped)
        {
            _call?.Dispose();
            return;
        }

        _call?.Signal();
    });

    /// <summary>Takes the call notifier away, so that it outlives this queue.</summary>
    public async Task<Notifier?> TakeCallAsync()
    {
        Notifier? call = null;
        await _worker.InvokeAsync(() => (call, _call) = (_call, null)).ConfigureAwait(false);
        return call;
    }

    /// <summary>Adopts another memory snapshot, once nothing of the old one is in use.</summary>
    /// <param name="memory">The new snapshot.</param>
    /// <param name="keepsOldRegions">The new one has every region of the old one: nothing need wait.</param>
    /// <param name="moved">Where the ring lies in the new one, when that has changed.</param>
    /// <returns>False when the ring is not in the new memory; it is parked then.</returns>
    public async Task<bool> AdoptAsync(GuestMemory memory, bool keepsOldRegions, VringAddresses? moved = null)
    {
        TaskCompletionSource<bool> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await _worker.InvokeAsync(() =>
        {
            if (_adopting is not null || _stopping is not null)
            {
                throw new InvariantException($"queue {Index} is being changed already, or is stopped");
            }

            if (keepsOldRegions)
            {
                done.SetResult(_queue.TryAdopt(memory, moved));
                ReportFault();
                return;
            }

            _adopting = (memory, moved, done);
            Quiesce();
        }).ConfigureAwait(false);
        return await _worker.WhileAlive(done.Task).ConfigureAwait(false);
    }

    /// <summary>
    /// Logs what the ring's device writes from now on, or elsewhere, or no more. When the task is done nothing is
    /// marked where it was before.
    /// </summary>
    public Task LogAsync(QueueLog? log) => _worker.InvokeAsync(() =>
    {
        if (!_isStopped)
        {
            Flush();
            _queue.SetLog(log);
        }
    });

    /// <summary>Stops the ring, then lets go of everything.</summary>
    /// <param name="how">What becomes of the requests in flight.</param>
    /// <returns>Where the device stands, as <see cref="VringSetup.Base"/>.</returns>
    /// <remarks>
    /// When the task is done nothing touches guest memory any more, however the ring was stopped: file operations that
    /// cannot be cancelled have come to their end.
    /// </remarks>
    public async Task<uint> StopAsync(QueueStop how = QueueStop.Drain)
    {
        TaskCompletionSource<uint> stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await _worker.InvokeAsync(() =>
        {
            _stopping ??= stopped;
            _stop = how;
            if (_stopping != stopped)
            {
                stopped.SetException(new InvariantException($"queue {Index} is being stopped twice"));
                return;
            }

            Quiesce();
        }).ConfigureAwait(false);
        return await _worker.WhileAlive(stopped.Task).ConfigureAwait(false);
    }

    internal void OnKick()
    {
        _started = true;
        _handler.OnKick();
        _worker.Activate(this);
    }

    internal void CallDriver() => _call?.Signal();

    internal void OnReady()
    {
        _handler.OnReady();
        _worker.Activate(this);
    }

    /// <summary>One turn: takes requests, and carries out a pending change when nothing is in flight.</summary>
    /// <param name="publishEarly">
    /// The driver runs on another CPU: publish (and call, if it wants that) after the first request and then every few,
    /// so that both sides work at the same time. On one CPU that would only cost calls.
    /// </param>
    /// <param name="isAlone">No other queue of this thread is busy.</param>
    /// <returns>Whether anything was done.</returns>
    internal bool Serve(bool publishEarly, bool isAlone)
    {
        bool busy = false;
        if (_handler.HasBacklog && !IsLettingGo)
        {
            _handler.Retry();
        }

        if (_queue.IsClosed || _withdrawing is not null)
        {
            TendTranslations();
        }

        if (CanServe)
        {
            busy = publishEarly ? DrainEarly(isAlone) : _handler.Drain(DrainLimit) > 0;
            ReportFault();
        }

        if (_stopping is not null || _adopting is not null)
        {
            Change();
        }

        return busy;
    }

    /// <summary>Publishes completed chains and calls the driver when it wants that.</summary>
    internal bool Flush()
    {
        if (_queue.IsTakenOver)
        {
            // No later completion would make up for a call that the earlier process owed.
            _queue.IsTakenOver = false;
            _call?.Signal();
        }

        if (_queue.HasUnpublished)
        {
            _queue.Publish();
        }
        else if (!_queue.OwesCall)
        {
            return false;
        }

        CallIfDue();
        return true;
    }

    /// <summary>Whether the driver has made something available that can be served.</summary>
    internal bool HasWork => CanServe && _handler.WantsChains && _queue.HasAvailable;

    /// <summary>
    /// Lets the driver kick, also a queue that a kick is to start, before nobody looks at this one; unless a chain
    /// would stay in the ring anyway.
    /// </summary>
    /// <returns>Whether there is something to do by now: look again.</returns>
    internal bool Arm() => _queue.HasUnpublished
        || (!_parked && (!CanServe || _handler.WantsChains) && _queue.ArmKicks() && CanServe);

    /// <summary>
    /// Tells the driver not to kick, while this queue is looked at. One that cannot be served waits for a kick.
    /// </summary>
    internal void Disarm()
    {
        if (CanServe)
        {
            _queue.SuppressKicks();
        }
    }

    private void TellEnabled() => _handler.OnEnabled(_enabled);

    /// <remarks>
    /// A request whose operation was cancelled to stop the ring is not failed: it stays in flight, and in the record.
    /// </remarks>
    internal void OnFileCompletion(uint tag, int result)
    {
        if (!IsLettingGo || result != -Errno.Canceled)
        {
            _handler.OnFileCompletion(tag, result);
        }
    }

    private void Quiesce()
    {
        _handler.Quiesce();
        _worker.Activate(this);
    }

    private void CompleteFromAfar(PendingRequest request, uint written) => Post(() => request.Complete(written));

    /// <summary>Runs an action of the handler, then looks at the queue: the action may have completed some.</summary>
    private void Post(Action action) => _worker.Post(() =>
    {
        if (!_isStopped)
        {
            _handler.Run(action);
            _worker.Activate(this);
        }
    });

    private bool DrainEarly(bool isAlone)
    {
        bool isMeasured = _pacing.IsMeasureDue;
        if (isMeasured || !isAlone)
        {
            _pacing.OnTurn(Stopwatch.GetTimestamp());
        }

        int served = _handler.Drain(1);
        if (served == 0)
        {
            return false;
        }

        // A quarter of what there is: fewer, and both sides wait for cache lines; more, and one waits for the other.
        // And few at first: the sooner the driver finds the first ones, the longer both work at the same time.
        int most = Math.Min(Math.Max(_servedBefore / 4, 2), _handler.EarlyLimit);
        int limit = 1;
        int more;
        do
        {
            FlushEarly(isAlone);
            limit = Math.Min(2 * limit, most);
            more = _handler.Drain(limit);
            served += more;
        }
        while (more == limit && served < DrainLimit);

        _servedBefore = served;
        if (isMeasured)
        {
            _pacing.OnTurnEnd(Stopwatch.GetTimestamp(), served);
        }
        else
        {
            _pacing.OnTurnEnd();
        }

        return true;
    }

    /// <summary>Publishes what is complete, and calls the driver if that pays before the end of the turn.</summary>
    private void FlushEarly(bool isAlone)
    {
        if (_queue.HasUnpublished)
        {
            _queue.Publish();
            bool pays = !isAlone
                ? _pacing.PaysAmongOthersAt(Stopwatch.GetTimestamp())
                : _pacing.IsShort || _pacing.PaysAt(Stopwatch.GetTimestamp(), _queue.IsHalfDone);
            if (pays)
            {
                CallIfDue();
            }
        }
    }

    private void CallIfDue()
    {
        if (_queue.ShouldCall() && _call is { } call)
        {
            long before = Stopwatch.GetTimestamp();
            call.Signal();
            _pacing.OnCall(before, Stopwatch.GetTimestamp());
        }
    }

    /// <summary>
    /// Carries out what is pending: when nothing is in flight that was not let go; or, where requests are not waited
    /// for, when nobody can touch their memory any more. A handler may go on with a request by another file operation,
    /// so the operations are cancelled at each look; their completions bring the next one.
    /// </summary>
    private void Change()
    {
        if (!IsLettingGo)
        {
            if (_queue.InFlight == _queue.LetGoCount)
            {
                FinishChange();
            }
        }
        else if (_worker.HasFileOperationsOf(this))
        {
            _worker.CancelFileOperationsOf(this);
        }
        else if (!_handler.HoldsMemory)
        {
            FinishChange();
        }
    }

    private void FinishChange()
    {
        if (_adopting is { } adopting)
        {
            _queue.SettleLetGo();
            Flush();
            _adopting = null;
            adopting.Done.SetResult(_queue.TryAdopt(adopting.Memory, adopting.Moved));
            ReportFault();
        }

        if (_stopping is { } stopping)
        {
            if (_stop == QueueStop.Drain && !HasFailed)
            {
                _queue.SettleLetGo();
            }

            Flush();
            if (!_parked)
            {
                // Whoever serves the ring next may wait for a kick.
                _queue.ArmKicks();
            }

            _isStopped = true;
            LeftInFlight = _queue.InFlight + _queue.WaitingForTurn;
            EndWithdrawals();
            _worker.Detach(this);
            _context.EndWatches();
            _handler.Dispose();
            _queue.Dispose();
            _call?.Dispose();
            _links.Kick?.Dispose();
            stopping.SetResult(_queue.Base);
        }
    }

    private void ReportFault()
    {
        if (_queue.Fault != VirtqueueFault.None && !_parked)
        {
            _parked = true;
            _links.Faulted?.Invoke(Index, _queue.Fault);
        }
    }

    /// <summary>Law 7: our own bug parks this queue and ends its session, not the process.</summary>
    internal void Fail(Exception error) => _handler.Fail(error);

    private void OnFailure(Exception error)
    {
        _parked = true;
        _links.Failed?.Invoke(Index, error);
    }
}

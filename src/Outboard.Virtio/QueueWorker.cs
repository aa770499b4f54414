// The thread that serves queues: the data plane. One worker serves one or many queues; a queue has one worker.
//
// A turn of the loop: carry out commands; let each active queue take requests; hand file operations to the kernel and
// take their completions; publish each queue's completed chains and call its driver once. A queue with nothing to do is
// armed (its driver kicks again) and leaves the active list, so that an idle queue costs nothing.
//
// Before the worker sleeps it looks again for a while (PollingWindow), since a wake-up costs far more than a look; the
// drivers are told that no kick is needed meanwhile. An idle worker sleeps in one epoll_wait, on its queues' kicks, on
// the completions of its file operations, on descriptors that handlers watch and on commands. Kick eventfds are
// edge-triggered and never read.
//
// Nothing on the way of a request allocates, locks or throws.
using System.Diagnostics;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio;

/// <summary>A thread that serves queues.</summary>
public sealed class QueueWorker : IAsyncDisposable
{
    private const ulong WakeTag = ulong.MaxValue;
    private const ulong FilesTag = ulong.MaxValue - 1;

    /// <summary>Beside a queue's number: a descriptor that its handler watches, not its kick.</summary>
    private const ulong WatchFlag = 1UL << 32;

    /// <summary>Turns between two looks at the kicks of sleeping queues while others are busy.</summary>
    private const int TurnsBetweenLooks = 64;

    private readonly QueueWorkerOptions _options;
    private readonly PollingWindow _window;
    private readonly Thread _thread;
    private readonly Epoll _epoll = new();
    private readonly WorkerCommands _commands = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Dictionary<uint, RunningQueue> _queues = [];
    private readonly List<RunningQueue> _active = [];
    private readonly ulong[] _tags = new ulong[32];
    private readonly FileCompletion[] _completions = new FileCompletion[64];

    private FileIoEngine? _files;
    private uint _lastId;
    private int _turns;
    private int _first;
    private int _busyQueues;
    private bool _stopping;

    /// <summary>Starts the thread.</summary>
    /// <param name="name">The thread's name, as tools show it.</param>
    /// <param name="options">How it behaves.</param>
    public QueueWorker(string name, QueueWorkerOptions? options = null)
    {
        _options = options ?? new QueueWorkerOptions();
        _window = new PollingWindow(_options.MaxPolling);
        _epoll.Add(_commands.Descriptor, WakeTag);
        _thread = new Thread(Run) { Name = name, IsBackground = true };
        _thread.Start();
    }

    /// <summary>Asynchronous file I/O of this thread; only there. Created at the first use.</summary>
    internal FileIoEngine Files => _files ?? CreateFiles();

    /// <summary>
    /// Whether file operations of any queue are in flight: one of their completions brings the next turn.
    /// </summary>
    internal bool HasFileOperations => _files is { InFlight: > 0 };

    /// <summary>Ends the thread. All queues are stopped.</summary>
    public async ValueTask DisposeAsync()
    {
        Post(() => _stopping = true);
        try
        {
            await _ended.Task.ConfigureAwait(false);
        }
        finally
        {
            _commands.Dispose();
            _epoll.Dispose();
        }
    }

    internal async Task<RunningQueue> StartAsync(VirtioDevice device, VringSetup setup, QueueLinks links)
    {
        RunningQueue? running = null;
        await InvokeAsync(() =>
        {
            Virtqueue queue = Virtqueue.Create(setup);
            try
            {
                running = new RunningQueue(this, device, queue, links, ++_lastId);
                if (links.Kick?.Waitable is { } waitable)
                {
                    _epoll.Add(waitable, running.Id);
                }
            }
            catch
            {
                queue.Dispose();
                throw;
            }

            _queues.Add(running.Id, running);
            Activate(running);
        }).ConfigureAwait(false);
        return running!;
    }

    /// <summary>Runs an action on the worker's thread.</summary>
    internal Task InvokeAsync(Action action) => WhileAlive(_commands.InvokeAsync(action));

    /// <summary>Awaits what this worker's thread will complete; fails when the thread ends before.</summary>
    internal async Task<T> WhileAlive<T>(Task<T> task)
    {
        if (await Task.WhenAny(task, _ended.Task).ConfigureAwait(false) != task && !task.IsCompleted)
        {
            await _ended.Task.ConfigureAwait(false);
            throw new InvariantException($"{_thread.Name} has ended");
        }

        return await task.ConfigureAwait(false);
    }

    /// <summary>Queues an action for the worker's thread; when that has ended, nobody is disturbed.</summary>
    internal void Post(Action action) => _commands.Post(action);

    /// <summary>Whether file operations of this queue are in flight.</summary>
    internal bool HasFileOperationsOf(RunningQueue queue) => HasFileOperations && _files!.HasInFlight(queue.Id);

    /// <summary>Asks for the early end of this queue's file operations.</summary>
    internal void CancelFileOperationsOf(RunningQueue queue) => _files?.Cancel(queue.Id);

    internal void Watch(FileDescriptor descriptor, Readiness readiness, RunningQueue queue) =>
        _epoll.Add(descriptor, WatchFlag | queue.Id, readiness);

    internal void EndWatch(FileDescriptor descriptor) => _epoll.Remove(descriptor);

    internal void Activate(RunningQueue queue)
    {
        if (!queue.IsActive && _queues.ContainsKey(queue.Id))
        {
            queue.IsActive = true;
            queue.Disarm();
            _active.Add(queue);
        }
    }

    internal void Detach(RunningQueue queue)
    {
        _queues.Remove(queue.Id);
        if (queue.Kick?.Waitable is { } waitable)
        {
            _epoll.Remove(waitable);
        }
    }

    private FileIoEngine CreateFiles()
    {
        _files = FileIoEngine.Create(_options.FileDepth, _options.FileEngine);
        _epoll.Add(_files.CompletionDescriptor, FilesTag);
        return _files;
    }

    private void Run()
    {
        try
        {
            _options.OnThreadStart?.Invoke();
            while (!_stopping)
            {
                try
                {
                    Serve();
                }
                catch (Exception error) when (_queues.Values.Any(queue => !queue.HasFailed))
                {
                    // Whoever threw, no queue of this thread can go on. All are parked; they can still be stopped.
                    FailAll(error);
                }
            }

            _files?.Dispose();
            _ended.SetResult();
        }
#pragma warning disable CA1031 // Whoever disposes this worker gets to know.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _ended.SetException(error);
        }
    }

    private void Serve()
    {
        while (!_stopping)
        {
            _commands.RunAll();
            if (Turn())
            {
                _window.OnWork();
            }
            else if (!_window.ShouldLookAgain(_active.Count > 0) && TrySleep())
            {
                long before = Stopwatch.GetTimestamp();
                Look(timeoutMs: -1);
                _active.ForEach(static queue => queue.Disarm());
                _window.OnSlept(Stopwatch.GetElapsedTime(before));
            }
        }
    }

    private void FailAll(Exception error)
    {
        foreach (RunningQueue queue in _queues.Values.Where(queue => !queue.HasFailed).ToArray())
        {
            queue.Fail(error);
        }
    }

    /// <summary>One turn over the active queues.</summary>
    /// <returns>Whether anything was done.</returns>
    private bool Turn()
    {
        int busyQueues = 0;
        bool isAlone = _busyQueues <= 1;
        int count = _active.Count;
        _first = count == 0 ? 0 : (_first + 1) % count;
        for (int i = 0; i < count; i++)
        {
            // Another queue begins each turn: they share the engine's room, and the first one finds most of it.
            RunningQueue queue = _active[(_first + i) % count];
            bool isBusy = queue.Serve(_window.IsPaying, isAlone);
            isBusy |= queue.Flush();
            busyQueues += isBusy ? 1 : 0;
        }

        _busyQueues = busyQueues;
        RemoveStopped();
        bool busy = TurnFiles() | (busyQueues > 0);
        if (++_turns >= TurnsBetweenLooks)
        {
            // What is taken here is not told again: a turn that saw any event must be followed by another one, or the
            // end of a file operation that came between TurnFiles and this look would find the worker asleep.
            busy |= Look(timeoutMs: 0);
        }

        return busy;
    }

    private void RemoveStopped()
    {
        for (int i = _active.Count - 1; i >= 0; i--)
        {
            if (!_queues.ContainsKey(_active[i].Id))
            {
                _active.RemoveAt(i);
            }
        }
    }

    private bool TurnFiles()
    {
        if (_files is null || _files.InFlight == 0)
        {
            return false;
        }

        _files.Submit();
        bool busy = false;
        int count;
        do
        {
            count = _files.Reap(_completions);
            for (int i = 0; i < count; i++)
            {
                ref readonly FileCompletion completion = ref _completions[i];
                if (_queues.TryGetValue((uint)(completion.Tag >> 32), out RunningQueue? queue))
                {
                    queue.OnFileCompletion((uint)completion.Tag, completion.Result);
                    Activate(queue);
                }
            }

            busy |= count > 0;
        }
        while (count == _completions.Length);
        if (busy)
        {
            foreach (RunningQueue queue in _active)
            {
                queue.Flush();
            }
        }

        return busy;
    }

    /// <summary>Arms every active queue and empties the active list, unless something turned up.</summary>
    /// <returns>Whether the worker may sleep.</returns>
    private bool TrySleep()
    {
        if (_stopping || !_commands.IsEmpty)
        {
            return false;
        }

        bool polls = false;
        for (int i = _active.Count - 1; i >= 0; i--)
        {
            RunningQueue queue = _active[i];
            if (queue.MustPoll)
            {
                polls = true;
            }
            else if (queue.WaitsForRoom)
            {
                // It stays in the list: the next completion wakes this thread, and the turn goes on with its backlog.
                if (queue.Arm())
                {
                    queue.Disarm();
                    return false;
                }
            }
            else if (queue.Arm())
            {
                queue.Disarm();
                return false;
            }
            else
            {
                queue.IsActive = false;
                _active.RemoveAt(i);
            }
        }

        return !polls;
    }

    /// <summary>Takes what epoll has.</summary>
    /// <returns>Whether it had anything.</returns>
    private bool Look(int timeoutMs)
    {
        _turns = 0;
        int count = _epoll.Wait(_tags, timeoutMs);
        for (int i = 0; i < count; i++)
        {
            if (_tags[i] == WakeTag)
            {
                _commands.OnWake();
            }
            else if (_tags[i] != FilesTag && _queues.TryGetValue((uint)_tags[i], out RunningQueue? queue))
            {
                if ((_tags[i] & WatchFlag) != 0)
                {
                    queue.OnReady();
                }
                else
                {
                    queue.OnKick();
                }
            }
        }

        return count > 0;
    }
}

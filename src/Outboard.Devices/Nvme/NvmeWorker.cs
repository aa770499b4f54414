// The thread that serves I/O queues: the data plane of the controller. A worker serves completion queues with all
// submission queues that complete there.
//
// A turn of the loop: carry out commands; let each submission queue take commands and start them; hand file operations
// to the kernel and take their completions; interrupt once for each completion queue that got entries. A worker with
// nothing to do looks again for a while (PollingWindow), then arms the doorbells and sleeps in one epoll_wait.
//
// A change of guest memory that takes regions away pauses the worker until nothing in flight uses mapped memory; then
// every ring is looked up anew. Commands that reach memory by messages hold none of it, and are not waited for.
using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using Outboard.Devices.Nvme.Queues;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Memory;
using Outboard.Pci.Dma;
using Outboard.Virtio;

namespace Outboard.Devices.Nvme;

/// <summary>A thread that serves I/O queues.</summary>
internal sealed partial class NvmeWorker : IAsyncDisposable
{
    /// <summary>Commands taken before other queues of the same thread get their turn, and interrupts go out.</summary>
    private const int DrainLimit = 64;

    /// <summary>The same while the driver works on another CPU: it takes these while we do the next.</summary>
    private const int EarlyDrainLimit = 16;

    /// <summary>
    /// Buffers of commands that reach guest memory by messages, of 1 MiB each: what such guests make this process hold,
    /// for each worker.
    /// </summary>
    private const int MaxBuffers = 8;

    /// <summary>Turns between two looks at descriptors while there is work.</summary>
    private const int TurnsBetweenLooks = 64;

    private const ulong CommandTag = 1;
    private const ulong BellTag = 2;
    private const ulong FilesTag = 3;

    private readonly QueueWorkerOptions _options;
    private readonly PollingWindow _window;
    private readonly Thread _thread;
    private readonly Epoll _epoll = new();
    private readonly EventFd _bell = new();
    private readonly WorkerCommands _commands = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<SubmissionQueue> _submissions = [];
    private readonly List<CompletionQueue> _completions = [];
    private readonly Dictionary<uint, DiskChannel> _channels = [];
    private readonly Stack<TransferBuffer> _buffers = new();
    private readonly ulong[] _tags = new ulong[8];
    private readonly FileCompletion[] _reaped = new FileCompletion[64];

    private FileIoEngine? _files;
    private (GuestMemory Memory, TaskCompletionSource Done)? _adopting;
    private uint _lastChannel;
    private int _buffersMade;
    private int _first;
    private int _turns;
    private int _isAsleep;
    private bool _isEnding;
    private bool _hasFailed;

    internal NvmeWorker(NvmeController controller, string name, QueueWorkerOptions options)
    {
        Controller = controller;
        _options = options;
        _window = new PollingWindow(options.MaxPolling);
        Shadow = new ShadowDoorbells(controller.StrideBytes, controller.QueuePairs);
        _epoll.Add(_commands.Descriptor, CommandTag);
        _epoll.Add(_bell.Descriptor, BellTag);
        _thread = new Thread(Run) { Name = name, IsBackground = true };
        _thread.Start();
    }

    internal NvmeController Controller { get; }

    /// <summary>Signalled to have the worker look at its doorbells.</summary>
    internal EventFd Bell => _bell;

    /// <summary>Whether completions are told by vectors, not by the pin.</summary>
    internal bool UsesVectors => Controller.UsesVectors;

    // What follows is used by the worker's thread.
    internal ShadowDoorbells Shadow { get; }

    internal DataPointer Pointer { get; } = new();

    internal MappedLists MappedLists { get; } = new();

    internal GuestMemory Memory => MappedLists.Memory;

    internal bool IsPaused => _adopting is not null || _hasFailed || _isHalted;

    internal FileIoEngine Files => _files ?? CreateFiles();

    /// <summary>Ends the thread. All queues are stopped.</summary>
    public async ValueTask DisposeAsync()
    {
        Post(() => _isEnding = true);
        await _ended.Task.ConfigureAwait(false);
        _commands.Dispose();
        _epoll.Dispose();
        _bell.Dispose();
    }

    /// <summary>A doorbell changed. From any thread.</summary>
    internal void Ring()
    {
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _isAsleep) != 0)
        {
            _bell.Signal();
        }
    }

    internal void Post(Action action) => _commands.Post(action);

    /// <summary>Runs an action on the thread.</summary>
    internal Task InvokeAsync(Action action) => WhileAliveAsync(_commands.InvokeAsync(action));

    internal Task AddAsync(CompletionQueue queue) => InvokeAsync(() =>
    {
        queue.Adopt(Memory);
        queue.FillShadow();
        _completions.Add(queue);
    });

    /// <summary>Ends a queue. When the task is done nothing writes to its ring.</summary>
    internal async Task RemoveAsync(CompletionQueue queue)
    {
        TaskCompletionSource ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await InvokeAsync(() => queue.BeginEnd(ended)).ConfigureAwait(false);
        await WhileAliveAsync(ended.Task).ConfigureAwait(false);
    }

    internal Task AddAsync(SubmissionQueue queue) => InvokeAsync(() =>
    {
        queue.Open();
        queue.Adopt(Memory);
        queue.FillShadow();
        _submissions.Add(queue);
    });

    /// <summary>Stops a queue: its commands are waited for, or forgotten.</summary>
    internal async Task StopAsync(SubmissionQueue queue, bool discard)
    {
        TaskCompletionSource stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await InvokeAsync(() => queue.BeginStop(discard || _hasFailed, stopped)).ConfigureAwait(false);
        await WhileAliveAsync(stopped.Task).ConfigureAwait(false);
    }

    internal Task ConfigureShadowAsync(ulong values, ulong events) => InvokeAsync(() =>
    {
        Shadow.Configure(values, events, Memory);
        foreach (SubmissionQueue queue in _submissions)
        {
            queue.FillShadow();
        }

        foreach (CompletionQueue queue in _completions)
        {
            queue.FillShadow();
        }
    });

    /// <summary>All queues are gone: what is left of them is forgotten, a failure of this thread included.</summary>
    internal Task ResetAsync() => InvokeAsync(() =>
    {
        Shadow.Forget();
        _hasFailed = false;
    });

    /// <summary>Goes over to other memory. When the task is done nothing uses the old one.</summary>
    internal async Task AdoptAsync(GuestMemory memory, bool keepsOldRegions)
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await InvokeAsync(() =>
        {
            if (keepsOldRegions)
            {
                Adopt(memory);
                done.SetResult();
            }
            else
            {
                _adopting?.Done.SetResult();
                _adopting = (memory, done);
            }
        }).ConfigureAwait(false);
        await WhileAliveAsync(done.Task).ConfigureAwait(false);
    }

    internal uint Register(DiskChannel channel)
    {
        _channels.Add(++_lastChannel, channel);
        return _lastChannel;
    }

    internal void Unregister(uint channel) => _channels.Remove(channel);

    /// <summary>Asks for the early end of a channel's file operations.</summary>
    /// <returns>Whether there are some.</returns>
    internal bool CancelFileOperations(uint channel)
    {
        if (_files is not { InFlight: > 0 } files || !files.HasInFlight(channel))
        {
            return false;
        }

        files.Cancel(channel);
        return true;
    }

    internal bool TryRent([NotNullWhen(true)] out TransferBuffer? buffer)
    {
        if (_buffers.TryPop(out buffer))
        {
            return true;
        }

        if (_buffersMade == MaxBuffers)
        {
            return false;
        }

        _buffersMade++;
        buffer = new TransferBuffer();
        return true;
    }

    internal void Return(TransferBuffer buffer) => _buffers.Push(buffer);

    /// <summary>A ring cannot be read or written.</summary>
    internal void OnRingUnreachable(ulong address)
    {
        if (!Controller.IsLettingGo)
        {
            Controller.Fail($"no guest memory at 0x{address:x}, where a queue should be");
        }
    }

    /// <summary>Awaits what the thread will complete; a thread that has ended (a bug of ours) completes all.</summary>
    private async Task WhileAliveAsync(Task task)
    {
        if (await Task.WhenAny(task, _ended.Task).ConfigureAwait(false) == task)
        {
            await task.ConfigureAwait(false);
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
            while (!_isEnding)
            {
                try
                {
                    Serve();
                }
                catch (Exception error) when (!_hasFailed)
                {
                    // A bug of ours: no queue of this thread goes on. They can still be stopped.
                    _hasFailed = true;
                    Controller.OnWorkerFailed(error);
                }
            }

            while (_buffers.TryPop(out TransferBuffer? buffer))
            {
                buffer.Dispose();
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
        while (!_isEnding)
        {
            _commands.RunAll();
            if (Turn())
            {
                _window.OnWork();
            }
            else if (!_window.ShouldLookAgain(_submissions.Count > 0) && TrySleep())
            {
                long before = Stopwatch.GetTimestamp();
                Look(timeoutMs: -1);
                Volatile.Write(ref _isAsleep, 0);
                _window.OnSlept(Stopwatch.GetElapsedTime(before));
            }
        }
    }

    /// <returns>Whether anything was done.</returns>
    private bool Turn()
    {
        bool busy = false;
        int count = _submissions.Count;
        _first = count == 0 ? 0 : (_first + 1) % count;
        for (int i = 0; i < count; i++)
        {
            SubmissionQueue queue = _submissions[(_first + i) % count];
            queue.Retry();
            busy |= queue.Drain(_window.IsPaying ? EarlyDrainLimit : DrainLimit) > 0;
            busy |= queue.StartWaiting();
        }

        busy |= TurnFiles();
        foreach (CompletionQueue queue in _completions)
        {
            busy |= queue.Flush();
        }

        Tend();
        if (++_turns >= TurnsBetweenLooks)
        {
            busy |= Look(timeoutMs: 0);
        }

        return busy;
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
            count = _files.Reap(_reaped);
            for (int i = 0; i < count; i++)
            {
                ref readonly FileCompletion completion = ref _reaped[i];
                if (_channels.TryGetValue((uint)(completion.Tag >> 32), out DiskChannel? channel))
                {
                    channel.OnFileCompletion((uint)completion.Tag, completion.Result);
                }
            }

            busy |= count > 0;
        }
        while (count == _reaped.Length);
        return busy;
    }

    /// <summary>Carries out what waits for commands in flight.</summary>
    private void Tend()
    {
        for (int i = _submissions.Count - 1; i >= 0; i--)
        {
            if (_submissions[i].TryEnd())
            {
                _submissions.RemoveAt(i);
            }
        }

        for (int i = _completions.Count - 1; i >= 0; i--)
        {
            if (_completions[i].TryEnd())
            {
                _completions.RemoveAt(i);
            }
        }

        if (_adopting is { } adopting && !IsMemoryUsed())
        {
            _adopting = null;
            Adopt(adopting.Memory);
            adopting.Done.SetResult();
        }

        TendHalt();
    }

    private bool IsMemoryUsed()
    {
        foreach (SubmissionQueue queue in _submissions)
        {
            if (queue.UsesMemory)
            {
                return true;
            }
        }

        return false;
    }

    private void Adopt(GuestMemory memory)
    {
        MappedLists.Memory = memory;
        MapHosts();
        Shadow.Adopt(memory);
        foreach (CompletionQueue queue in _completions)
        {
            queue.Adopt(memory);
        }

        foreach (SubmissionQueue queue in _submissions)
        {
            queue.Adopt(memory);
        }
    }

    private bool TrySleep()
    {
        if (_isEnding || !_commands.IsEmpty)
        {
            return false;
        }

        Volatile.Write(ref _isAsleep, 1);
        bool waits = false;
        foreach (SubmissionQueue queue in _submissions)
        {
            if (!HoldsStill)
            {
                queue.Arm();
            }

            waits |= queue.HasBacklog && _files is not { InFlight: > 0 };
        }

        Interlocked.MemoryBarrier();
        foreach (SubmissionQueue queue in _submissions)
        {
            waits |= queue.HasWork;
        }

        if (waits)
        {
            Volatile.Write(ref _isAsleep, 0);
        }

        return !waits;
    }

    /// <returns>Whether anything had happened.</returns>
    private bool Look(int timeoutMs)
    {
        _turns = 0;
        int count = _epoll.Wait(_tags, timeoutMs);
        for (int i = 0; i < count; i++)
        {
            if (_tags[i] == CommandTag)
            {
                _commands.OnWake();
            }
        }

        return count > 0;
    }
}

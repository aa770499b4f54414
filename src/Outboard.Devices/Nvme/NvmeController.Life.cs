// The controller's life: enabled, disabled, shut down, reset, without a client, at an end.
//
//   Disabled --CC.EN 0->1--> Starting --the disks are ours--> Ready
//   Ready --CC.EN 1->0, reset--> Stopping --nothing touches guest memory--> Disabled
//
// Starting takes no time unless another process has a disk (NvmeController.Images). It and Stopping go on beside the
// control loop, since a disk may keep us waiting; what the driver wants meanwhile is done when they are over.
using Microsoft.Extensions.Logging;
using Outboard.Devices.Nvme.Admin;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Dma;

namespace Outboard.Devices.Nvme;

public sealed partial class NvmeController
{
    private readonly Lock _lifeLock = new();
    private NvmeWorker[] _workers = [];
    private NvmeConfiguration _configuration;
    private uint _status;
    private volatile AdminQueue? _admin;
    private volatile CancellationTokenSource _cancellation = new();
    private volatile bool _isLettingGo;
    private volatile bool _hasWriteCache;
    private volatile bool _hasShadowDoorbells;
    private volatile int _pageBytes = 4096;

    /// <summary>What goes on while <see cref="_life"/> is Starting or Stopping.</summary>
    private Task _changing = Task.CompletedTask;
    private Life _life;

    /// <summary>Whether the driver wants the controller enabled once <see cref="_changing"/> is over.</summary>
    private bool _isWanted;

    private enum Life
    {
        Disabled,
        Starting,
        Ready,
        Stopping,
    }

    internal int PageBytes => _pageBytes;

    /// <summary>Whether completed writes may be lost before a flush.</summary>
    internal bool HasWriteCache
    {
        get => _hasWriteCache;
        set => _hasWriteCache = value;
    }

    internal bool HasShadowDoorbells
    {
        get => _hasShadowDoorbells;
        set => _hasShadowDoorbells = value;
    }

    internal uint SubmissionEntryShift => _configuration.SubmissionEntryShift;

    internal uint CompletionEntryShift => _configuration.CompletionEntryShift;

    /// <summary>
    /// Whether doorbells may be put into memory: it has to be mapped, and the doorbells to fit a page. A driver that
    /// uses the pin has to write the registers: QEMU releases the guest's pin when it does, and at nothing else.
    /// </summary>
    internal bool OffersShadowDoorbells =>
        _options.ShadowDoorbells && _usesVectors && ShadowBytes <= (uint)PageBytes && Dma.Memory.Regions.Length > 0;

    private uint ShadowBytes => (uint)((QueuePairs + 1) * 2 * StrideBytes);

    /// <summary>Whether guest memory is being let go of: that it cannot be reached is nobody's fault.</summary>
    internal bool IsLettingGo => _isLettingGo;

    internal IReadOnlyList<NvmeWorker> Workers => _workers;

    internal NvmeControllerStatus Status => (NvmeControllerStatus)Volatile.Read(ref _status);

    /// <summary>Stops everything and ends the threads. No client is there any more.</summary>
    public async ValueTask DisposeAsync()
    {
        await StopAsync().ConfigureAwait(false);
        foreach (NvmeWorker worker in _workers)
        {
            await worker.DisposeAsync().ConfigureAwait(false);
        }

        _workers = [];
    }

    /// <summary>The controller cannot go on until it is reset.</summary>
    internal void Fail(string reason)
    {
        _log.LogWarning("the controller fails: {Reason}; it needs a reset", reason);
        Interlocked.Or(ref _status, (uint)NvmeControllerStatus.Fatal);
    }

    internal void OnWorkerFailed(Exception error)
    {
        _log.LogCritical(error, "this program failed; its queues are not served until reset");
        Interlocked.Or(ref _status, (uint)NvmeControllerStatus.Fatal);
    }

    /// <summary>Has the admin queue look for something to do.</summary>
    internal void WakeAdmin() => _admin?.Wake();

    /// <summary>Whether a buffer of doorbells at this address is in mapped memory.</summary>
    internal bool HoldsShadow(ulong address) => Dma.Memory.TryGetWindow(address, ShadowBytes, out _);

    internal async ValueTask<bool> TryReadGuestAsync(ulong address, Memory<byte> destination)
    {
        try
        {
            await Dma.ReadAsync(address, destination, DmaRoute.Automatic, _cancellation.Token)
                .ConfigureAwait(false);
            return true;
        }
        catch (Exception error) when (error is IOException or OperationCanceledException)
        {
            return false;
        }
    }

    internal async ValueTask<bool> TryWriteGuestAsync(ulong address, ReadOnlyMemory<byte> source)
    {
        try
        {
            await Dma.WriteAsync(address, source, DmaRoute.Automatic, _cancellation.Token).ConfigureAwait(false);
            return true;
        }
        catch (Exception error) when (error is IOException or OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>The worker for a completion queue and all that complete there.</summary>
    internal NvmeWorker WorkerFor(int completionQueue) => _workers[(completionQueue - 1) % _workers.Length];

    internal async Task AddAsync(CompletionQueue queue)
    {
        await queue.Worker.AddAsync(queue).ConfigureAwait(false);
        Volatile.Write(ref _completions[queue.Id], queue);
    }

    internal async Task AddAsync(SubmissionQueue queue)
    {
        await queue.Worker.AddAsync(queue).ConfigureAwait(false);
        queue.Completions.Users++;
        Volatile.Write(ref _submissions[queue.Id], queue);
    }

    internal async Task RemoveAsync(CompletionQueue queue)
    {
        await queue.Worker.RemoveAsync(queue).ConfigureAwait(false);
        Volatile.Write(ref _completions[queue.Id], null);
        UpdatePin();
    }

    internal async Task RemoveAsync(SubmissionQueue queue, bool discard)
    {
        await queue.Worker.StopAsync(queue, discard).ConfigureAwait(false);
        if (Interlocked.Exchange(ref _submissions[queue.Id], null) is not null)
        {
            queue.Completions.Users--;
            _ended.Add(queue.Counters);
        }
    }

    /// <inheritdoc/>
    protected override async ValueTask OnResetAsync(PciResetKind kind)
    {
        await AbandonMigrationAsync().ConfigureAwait(false);
        await StopAsync().ConfigureAwait(false);
        _configuration = default;
        Volatile.Write(ref _status, 0);
        Volatile.Write(ref _interruptMask, 0);
        _adminAttributes = 0;
        _adminSubmission = _adminCompletion = 0;
        _usesVectors = false;
        UpdatePin();
    }

    /// <inheritdoc/>
    protected override async ValueTask OnMemoryChangedAsync(GuestMemory memory, bool keepsOldRegions) =>
        await AskWorkersAsync(worker => worker.AdoptAsync(memory, keepsOldRegions)).ConfigureAwait(false);

    /// <inheritdoc/>
    /// <remarks>
    /// Queues stay, and go on when their memory is there again. What goes by messages fails. A controller whose state
    /// was given away is nobody's any more: the next client finds it as after a reset.
    /// </remarks>
    protected override async ValueTask OnDetachedAsync()
    {
        // who starts looks at memory, which is there as long as this waits
        await SettleAsync().ConfigureAwait(false);
        _isLettingGo = true;
        await _cancellation.CancelAsync().ConfigureAwait(false);
        using (await LockAdminAsync().ConfigureAwait(false))
        {
            await AskWorkersAsync(worker => worker.AdoptAsync(GuestMemory.Empty, keepsOldRegions: false))
                .ConfigureAwait(false);
        }

        if (_isHandedOver)
        {
            await ResetAsync(PciResetKind.Device).ConfigureAwait(false);
            return;
        }

        await AbandonMigrationAsync().ConfigureAwait(false);
        _cancellation = new CancellationTokenSource();
        _isLettingGo = false;
    }

    /// <summary>
    /// Asks something of all workers. They may be being made beside the control loop: who makes them (PrepareWorkers)
    /// either sees what the control loop has changed before it asked, or is done, and the workers are asked here. So
    /// none of them keeps memory, or a log, that is about to go away.
    /// </summary>
    private Task AskWorkersAsync(Func<NvmeWorker, Task> ask)
    {
        lock (_lifeLock)
        {
            return Task.WhenAll(_workers.Select(ask));
        }
    }

    private async ValueTask<IDisposable?> LockAdminAsync() =>
        _admin is { } admin ? await admin.LockAsync().ConfigureAwait(false) : null;

    private void WriteConfiguration(NvmeConfiguration after)
    {
        NvmeConfiguration before = _configuration;
        _configuration = after;
        if (after.Shutdown != 0 && before.Shutdown == 0)
        {
            BeginShutdown();
        }

        lock (_lifeLock)
        {
            if (after.IsEnabled == before.IsEnabled)
            {
                return;
            }

            if (after.IsEnabled && _life == Life.Disabled)
            {
                Enable();
            }
            else if (_life is Life.Starting or Life.Stopping)
            {
                _isWanted = after.IsEnabled;
            }
            else if (!after.IsEnabled && _life == Life.Ready)
            {
                BeginStop();
            }
        }
    }

    private void Enable()
    {
        Volatile.Write(ref _status, 0);
        Task acquiring = AcquireForDriverAsync();
        if (acquiring.IsCompletedSuccessfully)
        {
            Start(problem: null);
            return;
        }

        _life = Life.Starting;
        _isWanted = true;
        _changing = StartLaterAsync(acquiring);
    }

    /// <summary>The controller is ready, or has failed.</summary>
    /// <param name="problem">Why it cannot be ready; null when nothing is known.</param>
    private void Start(string? problem)
    {
        uint submissions = (_adminAttributes & 0xfff) + 1;
        uint completions = ((_adminAttributes >> 16) & 0xfff) + 1;
        _life = Life.Ready;
        if (!Supports(_configuration) || submissions < 2 || completions < 2)
        {
            problem = $"enabled with CC 0x{_configuration.Value:x}, AQA 0x{_adminAttributes:x}";
        }

        if (problem is not null)
        {
            Fail(problem);
            return;
        }

        PrepareWorkers();
        _pageBytes = _configuration.PageBytes;
        _hasWriteCache = _options.WriteCache;
        Events.Reset();
        _admin = new AdminQueue(this, _adminSubmission, submissions, _adminCompletion, completions);
        Interlocked.Or(ref _status, (uint)NvmeControllerStatus.Ready);
    }

    /// <summary>Whether it can be enabled so.</summary>
    internal static bool Supports(NvmeConfiguration configuration) => configuration is { CommandSet: 0, Arbitration: 0 }
        && configuration.PageBytes <= 4096 << MaxPageShift;

    /// <summary>Makes the workers, at the first time, and tells them of memory. Under the lock.</summary>
    private void PrepareWorkers()
    {
        if (_workers.Length == 0)
        {
            int count = _options.WorkerCount > 0 ? _options.WorkerCount : Environment.ProcessorCount;
            _workers = [.. Enumerable.Range(0, Math.Min(count, QueuePairs))
                .Select(index => new NvmeWorker(this, $"nvme/{index}", _options.Worker))];
            foreach (NvmeWorker worker in _dirtyLog is null ? [] : _workers)
            {
                _ = worker.LogAsync(_dirtyLog);
            }
        }

        foreach (NvmeWorker worker in _workers)
        {
            // before any queue is made, since a worker's commands keep their order
            _ = worker.AdoptAsync(Dma.Memory, keepsOldRegions: true);
        }
    }

    private void BeginStop()
    {
        _life = Life.Stopping;
        _isWanted = false;
        _changing = Task.Run(StopAllAsync);
    }

    /// <summary>Stops, or waits for a stop that has begun; a start that has begun comes to nothing.</summary>
    private async Task StopAsync()
    {
        lock (_lifeLock)
        {
            if (_life == Life.Ready)
            {
                BeginStop();
            }

            _isWanted = false;
        }

        await SettleAsync().ConfigureAwait(false);
    }

    /// <summary>Waits until the controller neither starts nor stops.</summary>
    private async Task SettleAsync()
    {
        while (!_changing.IsCompleted)
        {
            await _changing.ConfigureAwait(false);
        }
    }

    private async Task StopAllAsync()
    {
        _isLettingGo = true;
        await _cancellation.CancelAsync().ConfigureAwait(false);
        Task ending = _admin?.EndAsync() ?? Task.CompletedTask;
        await DiscardAsync().ConfigureAwait(false);
        await ending.ConfigureAwait(false);

        // what the admin queue made in its last moments
        await DiscardAsync().ConfigureAwait(false);
        for (int id = 1; id <= QueuePairs; id++)
        {
            if (Completion(id) is { } queue)
            {
                await RemoveAsync(queue).ConfigureAwait(false);
            }
        }

        foreach (NvmeWorker worker in _workers)
        {
            await worker.ResetAsync().ConfigureAwait(false);
        }

        lock (_lifeLock)
        {
            _admin = null;
            _hasShadowDoorbells = false;
            _cancellation = new CancellationTokenSource();
            _isLettingGo = false;
            _life = Life.Disabled;
            Volatile.Write(ref _status, 0);
            UpdatePin();
            if (_isWanted)
            {
                _isWanted = false;
                Enable();
            }
        }
    }

    private async Task DiscardAsync()
    {
        List<Task> stops = [];
        for (int id = 1; id <= QueuePairs; id++)
        {
            if (Submission(id) is { } queue)
            {
                stops.Add(RemoveAsync(queue, discard: true));
            }
        }

        await Task.WhenAll(stops).ConfigureAwait(false);
    }

    private void BeginShutdown()
    {
        SetShutdown(NvmeControllerStatus.ShutdownOccurring);
        _ = Task.Run(() =>
        {
            FlushAll();
            if (_configuration.Shutdown != 0)
            {
                SetShutdown(NvmeControllerStatus.ShutdownComplete);
            }
        });
    }

    /// <summary>Makes all completed writes durable, waiting.</summary>
    /// <returns>Whether it worked.</returns>
    internal bool FlushAll()
    {
        bool isDone = true;
        foreach (NvmeNamespace place in Namespaces)
        {
            if (place.Disk.Flush() is < 0 and int error)
            {
                isDone = false;
                _log.LogError("flushing {Disk}: errno {Error}", place.Disk.Description, -error);
            }
        }

        return isDone;
    }

    private void SetShutdown(NvmeControllerStatus state)
    {
        uint before;
        uint after;
        do
        {
            before = Volatile.Read(ref _status);
            after = (before & ~(uint)NvmeControllerStatus.ShutdownMask) | (uint)state;
        }
        while (Interlocked.CompareExchange(ref _status, after, before) != before);
    }
}

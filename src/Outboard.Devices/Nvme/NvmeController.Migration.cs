// How a controller moves: an offer that tells which disks there are, and the state (NvmeState).
//
// Halting: the admin queue ends its command and begins no other; the workers take no more commands and complete what is
// in flight; disks are flushed, since somebody else will open them. What has not been taken stays in the rings, which
// are in guest memory and move with it. At the destination each queue interrupts once, since nobody knows which
// interrupts were on their way. Disks go from one process to the other (NvmeController.Images).
using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Outboard.Devices.Nvme.Admin;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Virtio.State;

namespace Outboard.Devices.Nvme;

public sealed partial class NvmeController
{
    private readonly NvmeMigration _migration;
    private volatile DirtyLog? _dirtyLog;
    private volatile bool _isHalted;

    /// <inheritdoc/>
    public override PciMigration? Migration => _migration;

    /// <inheritdoc/>
    public override bool NeedsDirtyLog => true;

    /// <summary>Whether nothing may happen that a guest could notice.</summary>
    internal bool IsHalted => _isHalted;

    /// <inheritdoc/>
    protected override async ValueTask OnLogChangedAsync(DirtyLog? log)
    {
        _dirtyLog = log;
        await AskWorkersAsync(worker => worker.LogAsync(log)).ConfigureAwait(false);
    }

    private async ValueTask HaltAsync()
    {
        _isHalted = true;
        await SettleAsync().ConfigureAwait(false);
        using (await LockAdminAsync().ConfigureAwait(false))
        {
            await Task.WhenAll(_workers.Select(worker => worker.HaltAsync())).ConfigureAwait(false);
        }
    }

    private async ValueTask ResumeAsync()
    {
        _isHalted = false;
        foreach (NvmeWorker worker in _workers)
        {
            await worker.ResumeAsync().ConfigureAwait(false);
        }

        WakeAdmin();
    }

    private async ValueTask AbandonMigrationAsync()
    {
        _migration.Abandon();
        _isHandedOver = false;
        if (_isHalted)
        {
            await ResumeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Makes the controller what another one was. It has been checked.</summary>
    private async Task TakeOverAsync(NvmeSnapshot snapshot)
    {
        Config.Write(0, snapshot.Config);
        Interrupts.Msix?.Table?.Load(snapshot.Vectors);
        _usesVectors = HasEnabledVectors;
        _interruptMask = snapshot.InterruptMask;
        _configuration = snapshot.Configuration;
        _adminAttributes = snapshot.AdminAttributes;
        _adminSubmission = snapshot.AdminSubmission;
        _adminCompletion = snapshot.AdminCompletion;
        _ended.Load(snapshot.Counters);
        Errors.Load(snapshot.Errors);
        _poweredBefore = snapshot.PoweredOn - Stopwatch.GetElapsedTime(_made);
        if (snapshot.Admin is { } admin)
        {
            await TakeOverQueuesAsync(snapshot, admin).ConfigureAwait(false);
        }
        else if (snapshot.Configuration.IsEnabled)
        {
            // it failed when it was enabled, and waits for being disabled
            _life = Life.Ready;
        }

        Volatile.Write(ref _status, (uint)snapshot.Status);
        if ((snapshot.Status & NvmeControllerStatus.ShutdownMask) == NvmeControllerStatus.ShutdownOccurring)
        {
            BeginShutdown();
        }

        for (int id = 0; id <= QueuePairs && snapshot.Admin is not null; id++)
        {
            if (id == 0 || Completion(id) is { HasInterrupts: true })
            {
                Interrupt(id == 0 ? 0 : Completion(id)!.Vector);
            }
        }
    }

    private async Task TakeOverQueuesAsync(NvmeSnapshot snapshot, AdminPosition admin)
    {
        lock (_lifeLock)
        {
            PrepareWorkers();
        }

        _pageBytes = snapshot.Configuration.PageBytes;
        _hasWriteCache = snapshot.HasWriteCache;
        Events.Load(snapshot.Events);
        if (snapshot.Shadow is { } shadow)
        {
            foreach (NvmeWorker worker in _workers)
            {
                await worker.ConfigureShadowAsync(shadow.Values, shadow.Events).ConfigureAwait(false);
            }

            _hasShadowDoorbells = true;
        }

        foreach (NvmeCompletionRecord one in snapshot.Completions)
        {
            await AddAsync(new CompletionQueue(
                WorkerFor(one.Id), one.Id, one.Size, one.Address, one.Vector, one.HasInterrupts)
            {
                Position = (one.Tail, one.Head, one.HeadRegister, one.Phase),
            }).ConfigureAwait(false);
        }

        foreach (NvmeSubmissionRecord one in snapshot.Submissions)
        {
            CompletionQueue completions = Completion(one.Completion)!;
            await AddAsync(new SubmissionQueue(completions.Worker, completions, one.Id, one.Size, one.Address)
            {
                Position = (one.Head, one.Tail, one.TailRegister, one.Aborted),
            }).ConfigureAwait(false);
        }

        lock (_lifeLock)
        {
            _life = Life.Ready;
            _admin = new AdminQueue(
                this, _adminSubmission, snapshot.AdminSubmissionSize, _adminCompletion, snapshot.AdminCompletionSize,
                admin);
        }
    }

    /// <summary>Carries out the steps of a migration.</summary>
    private sealed class NvmeMigration(NvmeController controller) : FramedMigration
    {
        private NvmeSnapshot? _arrived;

        protected override int MaxOfferBytes => NvmeState.MaxOfferBytes;

        protected override int MaxStateBytes => DeviceStateFormat.MaxBytes;

        public override void Abandon()
        {
            base.Abandon();
            _arrived = null;
        }

        protected override byte[] MakeOffer() => NvmeState.MakeOffer(controller);

        protected override void RequireOffer(ReadOnlySpan<byte> offer)
        {
            if (NvmeState.FindMismatch(controller, offer) is { } mismatch)
            {
                throw Refusal(Errno.NotSupported, mismatch);
            }
        }

        protected override ValueTask HaltAsync() => controller.HaltAsync();

        protected override byte[] Leave()
        {
            if (!controller.FlushAll())
            {
                throw new MigrationException(Errno.InputOutput, "a disk cannot be flushed");
            }

            // what has come and was not used goes on as it came
            byte[] state = NvmeState.Save(_arrived ?? controller.TakeSnapshot());
            controller.HandOver();
            return state;
        }

        protected override void Arrive(ReadOnlySpan<byte> state)
        {
            RequireDisabled();
            try
            {
                _arrived = NvmeState.Load(controller, state);
            }
            catch (DeviceStateException error)
            {
                throw Refusal(Errno.InvalidArgument, error.Message);
            }
        }

        protected override async ValueTask ContinueAsync(bool hasMoved)
        {
            NvmeSnapshot? arrived = hasMoved ? _arrived : null;
            if (arrived is not null)
            {
                RequireDisabled();
            }

            try
            {
                if (arrived?.Configuration.IsEnabled ?? controller._life != Life.Disabled)
                {
                    await controller.AcquireDisksAsync().ConfigureAwait(false);
                }

                controller._isHandedOver = false;
                await controller.ResumeAsync().ConfigureAwait(false);
                if (arrived is not null)
                {
                    _arrived = null;
                    await controller.TakeOverAsync(arrived).ConfigureAwait(false);
                }

                _ = controller.RefreshSizes();
            }
            catch (IOException error)
            {
                throw Refusal(Errno.Busy, error.Message);
            }

            controller.UpdatePin();
        }

        private void RequireDisabled()
        {
            if (controller._life != Life.Disabled)
            {
                throw Refusal(Errno.Busy, "the controller here is enabled: only one that is not can become another");
            }
        }

        private MigrationException Refusal(int errno, string reason)
        {
            controller._log.LogWarning("a migration fails here: {Reason}", reason);
            return new MigrationException(errno, reason);
        }
    }

    /// <summary>Everything that moves. The controller is halted.</summary>
    private NvmeSnapshot TakeSnapshot()
    {
        bool isReady = _life == Life.Ready;
        (ulong Values, ulong Events)? shadow =
            isReady && _hasShadowDoorbells && _workers.Length > 0 ? _workers[0].Shadow.Places : null;
        return new NvmeSnapshot
        {
            Config = Config.Save(),
            Vectors = Interrupts.Msix?.Table?.Save() ?? [],
            InterruptMask = _interruptMask,
            Configuration = _configuration,
            Status = Status,
            AdminAttributes = _adminAttributes,
            AdminSubmission = _adminSubmission,
            AdminCompletion = _adminCompletion,
            Admin = isReady ? _admin?.Position : null,
            HasWriteCache = _hasWriteCache,
            Events = Events.Save(),
            Errors = Errors.Save(),
            Counters = SumCounters().Save(),
            PoweredOn = PoweredOn,
            Shadow = shadow,
            Completions = [.. _completions.OfType<CompletionQueue>().Select(NvmeCompletionRecord.Of)],
            Submissions = [.. _submissions.OfType<SubmissionQueue>().Select(NvmeSubmissionRecord.Of)],
        };
    }
}

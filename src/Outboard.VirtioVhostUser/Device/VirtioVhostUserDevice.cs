// The virtio-vhost-user device: a virtio device, on any transport, by which a driver inside one virtual machine is the
// vhost-user back-end of another one. It takes the front-end's messages, lays the resources that come with them out as
// shared memory regions and notifications, and passes the messages on; and back.
//
//   driver     BACKEND_UP := 1            front-end connects          BACKEND_UP := 0, or reset
//   [down] ------------------> [armed] ---------------> [connected] ----------------------------> [down]
//      ^                                                    |
//      +---- the front-end goes away, or breaks a rule -----+    both bits cleared, configuration interrupt
//
// Races between the two sides and their answers:
//   R1 a driver re-arms without having seen that a session ended      after clearing, BACKEND_UP is accepted only once
//                                                                     the driver has read the status; until then the
//                                                                     interrupt is raised again
//   R2 stale replies in the driver's queue reach the next front-end   what is there when it arms is dropped (CutAsync)
//   R3 stale requests in the other queue                              cleared before the status is (DriverMailbox)
//   R4 messages before the interrupt                                  allowed: drivers cope
//   R5 a message was read and had no buffer when the end came         dropped, likewise
//   R6 a kick before the message that tells of it                     kicks are looked at after its delivery
//   R7 a doorbell for another session                                 the slot has no notifier then (AuxiliarySlot)
//   R8 memory vanishes under a driver that polls it                   it stays until the driver arms again, or says
//                                                                     that it is not ready, or is reset, or the grace
//                                                                     time is over (RegionWindows)
//   R9 a reset while a mapping is under way                           epochs (RegionWindows)
//   R10 a configuration that is read in pieces                        the generation counts every change
//   R11 many front-ends                                               one at a time; the next waits unread
//
// A driver that breaks a rule has the device need a reset. So has one whose queue of messages stops: transports that
// know no reset stop the queues instead.
using Microsoft.Extensions.Logging;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>A virtio-vhost-user device.</summary>
public sealed partial class VirtioVhostUserDevice : VirtioDevice, IDisposable
{
    /// <summary>Largest size of every queue: QEMU gives all queues of such a device one size, 64 unless told.</summary>
    public const int QueueSize = 256;

    private readonly Lock _gate = new();
    private readonly VirtioVhostUserOptions _options;
    private readonly ILogger _log;
    private readonly AuxiliarySlot[] _slots;
    private TaskCompletionSource _armed = NewSignal();
    private volatile FrontendSession? _session;
    private volatile TransmitQueue? _transmit;
    private Task _released = Task.CompletedTask;
    private bool _isUp;
    private bool _isConnected;
    private bool _mustBeSeen;
    private bool _isBroken;
    private bool _endedByStop;
    private uint _number;

    /// <summary>Makes a device. Nothing is served before <see cref="ServeAsync"/>.</summary>
    /// <exception cref="ArgumentException">The options contradict each other.</exception>
    public VirtioVhostUserDevice(VirtioVhostUserOptions options)
        : base(options.Type, QueueSizes(options), ConfigSpaceOf(options))
    {
        DriverFrame.RequireLittleEndian();
        if (!ulong.IsPow2(options.WindowBytes) || options.WindowBytes < VirtioVhostUserOptions.MinWindowBytes)
        {
            throw new ArgumentException(
                $"the regions have {options.WindowBytes} bytes: give a power of two from "
                + $"{VirtioVhostUserOptions.MinWindowBytes} on");
        }

        _options = options;
        _log = options.Logger;
        SharedRegions = RegionsOf(options);
        Windows = new RegionWindows(this);
        int notifications = VirtioVhostUserSpec.LogOf(options.Rings) + 1;
        _slots = [.. Enumerable.Range(0, notifications)
            .Select(slot => new AuxiliarySlot(slot / 2, () => Kicks))];
        Config.Set(VirtioVhostUserSpec.MaxVhostQueues, (ulong)options.Rings);
        Config.SetBytes(VirtioVhostUserSpec.Id, options.Id.Span);
    }

    /// <inheritdoc/>
    public override ulong DeviceFeatures => VirtioVhostUserSpec.ExplicitOffsets
        | VirtioVhostUserSpec.AuxiliaryByQueue | VirtioVhostUserSpec.InflightRegion
        | VirtioVhostUserSpec.SessionEndBuffers | VirtioVhostUserSpec.WindowStatus
        | (_options.NumbersSessions ? VirtioVhostUserSpec.SessionNumbers : 0);

    /// <inheritdoc/>
    public override IReadOnlyList<SharedRegion> SharedRegions { get; }

    /// <summary>Rings that a front-end can have.</summary>
    public int Rings => _options.Rings;

    internal VirtioVhostUserOptions Options => _options;

    private bool HasNumbers => (NegotiatedFeatures & VirtioVhostUserSpec.SessionNumbers) != 0;

    internal DriverMailbox Mailbox { get; } = new();

    internal RegionWindows Windows { get; }

    /// <summary>Whether a message of the driver's can be taken; without a session it is dropped.</summary>
    internal bool HasRoom => _session?.HasRoom ?? true;

    /// <summary>Serves front-ends, one after another, until cancelled.</summary>
    /// <param name="source">Where they come from; stays the caller's.</param>
    /// <param name="cancellation">Ends serving.</param>
    /// <exception cref="IOException">The source cannot be used.</exception>
    public async Task ServeAsync(ChannelSource source, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                VhostUserChannel channel = await source
                    .NextAsync(Timeout.InfiniteTimeSpan, cancellation).ConfigureAwait(false);
                await ServeConnectionAsync(channel, cancellation).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // Asked to end.
        }
    }

    /// <summary>Serves one front-end until either side is gone. Nothing is read from it before the driver is ready.
    /// </summary>
    /// <param name="channel">The front-end; disposed at the end.</param>
    /// <param name="cancellation">Ends serving.</param>
    public async Task ServeConnectionAsync(VhostUserChannel channel, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(channel);
        FrontendSession session = new(this, channel);
        try
        {
            if (await ConnectAsync(session, channel, cancellation).ConfigureAwait(false))
            {
                _log.LogInformation("a front-end is connected to the driver");
                await session.RunAsync(cancellation).ConfigureAwait(false);
            }
        }
        finally
        {
            EndSession(session);
            await session.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        EndDriver(forgetsFault: true);
    }

    /// <summary>Lets go of what the last front-end gave. Nobody serves the device any more.</summary>
    public void Dispose()
    {
        EndDriver(forgetsFault: false);
        foreach (AuxiliarySlot slot in _slots)
        {
            slot.Dispose();
        }

        _kicks?.Dispose();
    }

    /// <summary>The driver broke a rule: the session ends, and nothing happens before a reset.</summary>
    /// <param name="problem">What it did.</param>
    /// <param name="judge">The session that saw it, which may be over by now; null for the device.</param>
    internal void Break(string problem, FrontendSession? judge = null)
    {
        FrontendSession? session;
        lock (_gate)
        {
            if (_isBroken || (judge is not null && judge != _session))
            {
                return;
            }

            _isBroken = true;
            session = TakeDown(mustBeSeen: true);
        }

        _log.LogWarning("the driver broke a rule: {Problem}; the device needs a reset", problem);
        session?.Close();
        NotifyConfigChanged();
        NotifyNeedsReset();
    }

    /// <summary>A message of the driver's, on its queue's thread.</summary>
    internal void OnFromDriver(DriverFrame frame) => _session?.TakeFromDriver(frame);

    /// <summary>Does something that belongs to a session, if that is still the one.</summary>
    internal bool TryWithSession(FrontendSession session, Action action)
    {
        lock (_gate)
        {
            if (_session != session)
            {
                return false;
            }

            action();
            return true;
        }
    }

    internal TransmitQueue? Transmit => _transmit;

    internal void WakeTransmit() => _transmit?.Wake();

    internal AuxiliarySlot Slot(int notification) => _slots[notification];

    internal void SetTransmit(TransmitQueue? queue) => _transmit = queue;

    /// <summary>The queue of messages runs: a driver that was stopped in the middle of a session learns of its end.
    /// </summary>
    internal void OnMessagesStarted()
    {
        bool tells;
        lock (_gate)
        {
            tells = _endedByStop;
            _endedByStop = false;
        }

        if (tells)
        {
            NotifyConfigChanged();
        }
    }

    /// <summary>The queue of messages has stopped: the driver is gone, or everything is started anew.</summary>
    internal void OnMessagesStopped() => EndDriver(forgetsFault: true);

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        return context.Queue.Index switch
        {
            VirtioVhostUserSpec.ReceiveQueue => new ReceiveQueue(this, context),
            VirtioVhostUserSpec.TransmitQueue => new TransmitQueue(this, context),
            int index => new AuxiliaryQueue(_slots[index - VirtioVhostUserSpec.FirstAuxiliaryQueue], context),
        };
    }

    /// <summary>Memory, log and record; a file has no place for the log, which is always memory of the front-end's.
    /// </summary>
    private static SharedRegion[] RegionsOf(VirtioVhostUserOptions options)
    {
        ulong small = options.WindowBytes / VirtioVhostUserOptions.SmallWindows;
        if (options.MemoryFile is not { } file)
        {
            return
            [
                new SharedRegion(VirtioVhostUserSpec.MemoryWindow, options.WindowBytes - (2 * small)),
                new SharedRegion(VirtioVhostUserSpec.LogWindow, small),
                new SharedRegion(VirtioVhostUserSpec.InflightWindow, small),
            ];
        }

        return file.SizeBytes < options.WindowBytes
            ? throw new ArgumentException(
                $"the file of the memory has {file.SizeBytes} bytes, the regions {options.WindowBytes}")
            :
            [
                new SharedRegion(VirtioVhostUserSpec.MemoryWindow, options.WindowBytes - small) { Memory = file },
                new SharedRegion(VirtioVhostUserSpec.InflightWindow, small)
                {
                    Memory = file,
                    MemoryOffset = options.WindowBytes - small,
                },
            ];
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static int[] QueueSizes(VirtioVhostUserOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (options.Rings is < 1 or > VirtioVhostUserSpec.MaxRings)
        {
            throw new ArgumentException($"{options.Rings} rings: 1 to {VirtioVhostUserSpec.MaxRings} are possible");
        }

        int[] sizes = new int[VirtioVhostUserSpec.QueueCount(options.Rings)];
        Array.Fill(sizes, QueueSize);
        return sizes;
    }

    /// <summary>Waits for the driver, then makes this the session.</summary>
    /// <returns>False when the front-end went away before.</returns>
    private async Task<bool> ConnectAsync(
        FrontendSession session, VhostUserChannel channel, CancellationToken cancellation)
    {
        using CancellationTokenSource ended = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task closed = channel.WaitForCloseAsync(ended.Token);
        try
        {
            while (true)
            {
                Task armed;
                lock (_gate)
                {
                    armed = _armed.Task;
                }

                if (await Task.WhenAny(armed, closed).ConfigureAwait(false) == closed)
                {
                    cancellation.ThrowIfCancellationRequested();
                    return false;
                }

                // Exact cuts: what the driver sent before it armed, and what it saw, are of the session before.
                await (_transmit?.CutAsync() ?? Task.CompletedTask).WaitAsync(cancellation).ConfigureAwait(false);
                await _released.WaitAsync(cancellation).ConfigureAwait(false);
                if (TryBegin(session, armed))
                {
                    NotifyConfigChanged();
                    return true;
                }
            }
        }
        finally
        {
            await ended.CancelAsync().ConfigureAwait(false);
            await closed.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <param name="session">The next one.</param>
    /// <param name="armed">What the cuts were made for: the driver may have armed once more since.</param>
    private bool TryBegin(FrontendSession session, Task armed)
    {
        lock (_gate)
        {
            if (!_isUp || _session is not null || armed != _armed.Task)
            {
                return false;
            }

            session.Begin(NegotiatedFeatures);
            if (HasNumbers)
            {
                _number = Math.Max(1, unchecked(_number + 1));
                Config.Set(VirtioVhostUserSpec.Session, _number);
                Mailbox.Hold(true);
            }

            _session = session;
            _isConnected = true;
            UpdateStatus();
            return true;
        }
    }

    private void EndSession(FrontendSession session)
    {
        Task armed;
        lock (_gate)
        {
            if (_session != session)
            {
                return;
            }

            TakeDown(mustBeSeen: true);
            armed = _armed.Task;
        }

        _log.LogInformation("the session is over");
        NotifyConfigChanged();
        if (_options.MemoryGrace is { } grace)
        {
            _ = ReleaseLaterAsync(grace, armed);
        }
    }

    /// <param name="grace">When.</param>
    /// <param name="armed">What the driver has not done yet: after that nothing of the session is left.</param>
    private async Task ReleaseLaterAsync(TimeSpan grace, Task armed)
    {
        await Task.Delay(grace, _options.Clock).ConfigureAwait(false);
        lock (_gate)
        {
            if (!_isUp && armed == _armed.Task)
            {
                _released = Windows.ReleaseAsync(_released);
            }
        }
    }

    /// <summary>No driver any more: what it was told of is gone, also what its transport has mapped for it.</summary>
    private void EndDriver(bool forgetsFault)
    {
        FrontendSession? session;
        lock (_gate)
        {
            _endedByStop |= _isUp;
            session = TakeDown(mustBeSeen: false);
            _isBroken &= !forgetsFault;
        }

        Windows.Forget();
        session?.Close();
    }

    /// <summary>Clears both bits, and everything that belongs to the session. Under the gate.</summary>
    /// <returns>The session, to be closed outside of the gate.</returns>
    private FrontendSession? TakeDown(bool mustBeSeen)
    {
        FrontendSession? session = _session;
        _session = null;
        _isUp = false;
        _isConnected = false;
        _mustBeSeen = mustBeSeen;
        if (_armed.Task.IsCompleted)
        {
            _armed = NewSignal();
        }

        Mailbox.Clear();
        if (mustBeSeen && !_isBroken && session is not null
            && (NegotiatedFeatures & VirtioVhostUserSpec.SessionEndBuffers) != 0)
        {
            Mailbox.PostEnd();
        }

        foreach (AuxiliarySlot slot in _slots)
        {
            slot.SetDoorbell(null);
            slot.SetKick(null);
        }

        UpdateStatus();
        return session;
    }
}

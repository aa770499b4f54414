// The driver of a virtio-vhost-user device: a source of channels, one for each front-end, so that every back-end of
// this library runs inside a guest as it runs beside it.
//
//   [idle] --NextAsync: read the status, drop what came, BACKEND_UP := 1--> [arming] --FRONTEND_UP, or a message-->
//   [connected] --FRONTEND_UP gone, or the channel is disposed (BACKEND_UP := 0)--> [idle]
//
// Reading the status before arming is what the device waits for (its R1); dropping what came is the cut between two
// sessions (R3). A message may come before the status shows the front-end (R4): either begins the session, and a status
// that was asked for before that says nothing about it.
// A buffer that comes back empty is the end of the session, where the device offers that; it may also be that of the
// session before, so it counts only after a message. Where sessions have numbers, messages come when the number of the
// one that the status shows was acknowledged.
// One loop looks at everything that an interrupt can mean. Messages that are sent share the gate with it: none of a
// session that is over is sent after the next one began.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.Linux.Events;
using Outboard.Virtio.Queue.Driver;
using Outboard.VhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>Front-ends that are reached through a virtio-vhost-user device.</summary>
public sealed class VirtioVhostUserSource : ChannelSource
{
    /// <summary>Waits between attempts to arm a device that does not take it.</summary>
    private static readonly TimeSpan s_retry = TimeSpan.FromMilliseconds(100);

    private readonly DriverAccess _access;
    private readonly ILogger _log;
    private readonly Lock _gate = new();
    private readonly EventWatcher _watcher = new("virtio-vhost-user");
    private readonly CancellationTokenSource _end = new();
    private readonly WakeSignal _wake = new();
    private readonly WakeSignal _sent = new();

    /// <summary>A status is judged by whoever read it, before anybody writes another one.</summary>
    private readonly SemaphoreSlim _statusTurn = new(1);
    private readonly DriverBuffer[] _receiveBuffers;
    private readonly DriverBuffer[] _sendBuffers;
    private readonly Stack<uint> _freeSendBuffers = [];
    private readonly Task _loop;
    private TaskCompletionSource<VirtioVhostUserChannel?>? _arming;
    private VirtioVhostUserChannel? _current;
    private bool _hasMessage;
    private int _begun;
    private uint _acknowledged;

    /// <summary>Begins to drive a device, and takes ownership of it.</summary>
    public VirtioVhostUserSource(DriverAccess access, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(access);
        DriverFrame.RequireLittleEndian();
        _access = access;
        _log = logger ?? NullLogger.Instance;
        _receiveBuffers = Allocate(access.Receive);
        _sendBuffers = Allocate(access.Transmit);
        for (uint i = 0; i < _sendBuffers.Length; i++)
        {
            _freeSendBuffers.Push(i);
        }

        for (uint i = 0; i < _receiveBuffers.Length; i++)
        {
            access.Receive.Ring.TryAdd([], [_receiveBuffers[i]], i);
        }

        access.Receive.Submit();
        foreach (EventFd interrupt in access.Interrupts)
        {
            _watcher.Add(interrupt, _ => OnInterrupt());
        }

        _loop = Task.Run(RunAsync);
    }

    /// <inheritdoc/>
    public override string Description => _access.Description;

    internal SharedKicks Kicks { get; } = new();

    /// <inheritdoc/>
    public override async Task<VhostUserChannel> NextAsync(
        TimeSpan patience, CancellationToken cancellation = default)
    {
        using CancellationTokenSource limit =
            CancellationTokenSource.CreateLinkedTokenSource(cancellation, _end.Token);
        limit.CancelAfter(patience);
        try
        {
            while (true)
            {
                if (await ArmAsync(limit.Token).ConfigureAwait(false) is { } channel)
                {
                    return channel;
                }

                _log.LogDebug("the device did not take the driver as ready; once more");
                await Task.Delay(s_retry, limit.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException error) when (!cancellation.IsCancellationRequested)
        {
            throw new IOException($"{Description}: no front-end within {patience.TotalSeconds:F1} s", error);
        }
    }

    /// <summary>Ends driving, and resets the device.</summary>
    public override void Dispose()
    {
        _end.Cancel();
        _wake.Set();
        _loop.GetAwaiter().GetResult();
        _watcher.Dispose();
        _access.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _end.Dispose();
        _statusTurn.Dispose();
    }

    /// <summary>Sends a message of a channel, when there is room.</summary>
    internal async ValueTask SendAsync(
        VirtioVhostUserChannel channel, DriverFrame frame, CancellationToken cancellation)
    {
        byte[] bytes = frame.Encode();
        if (bytes.Length > VirtioVhostUserSpec.MaxMessageBytes)
        {
            throw new IOException(
                $"a message of {bytes.Length} bytes, at most {VirtioVhostUserSpec.MaxMessageBytes} pass");
        }

        try
        {
            while (!TrySend(channel, bytes))
            {
                await _sent.WaitAsync(cancellation).ConfigureAwait(false);
            }
        }
        finally
        {
            // One signal wakes one; whoever comes after this one looks by itself.
            _sent.Set();
        }
    }

    /// <summary>A channel is not used any more.</summary>
    internal async Task LeaveAsync(VirtioVhostUserChannel channel)
    {
        lock (_gate)
        {
            if (_current != channel)
            {
                return;
            }

            _current = null;
        }

        _sent.Set();
        try
        {
            await _access.WriteStatusAsync(0, CancellationToken.None).ConfigureAwait(false);
        }
        catch (IOException error)
        {
            _log.LogWarning("{Device}: {Reason}", Description, error.Message);
        }
    }

    private static DriverBuffer[] Allocate(DriverQueueLink queue) =>
        [.. Enumerable.Range(0, queue.Ring.Size)
            .Select(_ => queue.Memory.Allocate(VirtioVhostUserSpec.MaxMessageBytes))];

    private void OnInterrupt()
    {
        // First: this may be the kick of a ring.
        Kicks.SignalAll();
        _wake.Set();
    }

    private async Task<VirtioVhostUserChannel?> ArmAsync(CancellationToken cancellation)
    {
        TaskCompletionSource<VirtioVhostUserChannel?> arming = new(TaskCreationOptions.RunContinuationsAsynchronously);
        try
        {
            await _statusTurn.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                await ArmAsync(arming, cancellation).ConfigureAwait(false);
            }
            finally
            {
                _statusTurn.Release();
            }

            return await arming.Task.WaitAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            lock (_gate)
            {
                _arming = _arming == arming ? null : _arming;
            }
        }
    }

    private async Task ArmAsync(
        TaskCompletionSource<VirtioVhostUserChannel?> arming, CancellationToken cancellation)
    {
        if ((await _access.ReadStatusAsync(cancellation).ConfigureAwait(false) & VirtioVhostUserSpec.BackendUp) != 0)
        {
            await _access.WriteStatusAsync(0, cancellation).ConfigureAwait(false);
            await _access.ReadStatusAsync(cancellation).ConfigureAwait(false);
        }

        lock (_gate)
        {
            DrainReceived();
            _arming = arming;
        }

        await _access.WriteStatusAsync(VirtioVhostUserSpec.BackendUp, cancellation).ConfigureAwait(false);
        await ReadStatusAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Looks at the status, and has messages come if there is a session. In one's turn.</summary>
    private async Task ReadStatusAsync(CancellationToken cancellation)
    {
        int begun = Volatile.Read(ref _begun);
        uint status = await _access.ReadStatusAsync(cancellation).ConfigureAwait(false);
        OnStatus(status, begun);
        if ((status & VirtioVhostUserSpec.FrontendUp) != 0
            && (_access.Features & VirtioVhostUserSpec.SessionNumbers) != 0)
        {
            uint session = await _access.ReadSessionAsync(cancellation).ConfigureAwait(false);
            if (session != _acknowledged)
            {
                await _access.AcknowledgeSessionAsync(session, cancellation).ConfigureAwait(false);
                _acknowledged = session;
            }
        }
    }

    private async Task RunAsync()
    {
        try
        {
            while (!_end.IsCancellationRequested)
            {
                lock (_gate)
                {
                    DrainReceived();
                    CollectSent();
                }

                if (await _access.HasChangedAsync(_end.Token).ConfigureAwait(false))
                {
                    await LookAtStatusAsync().ConfigureAwait(false);
                }

                if (!IsMoreThere())
                {
                    await _wake.WaitAsync(_end.Token).ConfigureAwait(false);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // Asked to end.
        }
        catch (Exception error) when (error is IOException or InvalidDataException)
        {
            _log.LogError("{Device} is lost: {Reason}", Description, error.Message);
        }

        EndCurrent();
    }

    private async Task LookAtStatusAsync()
    {
        await _statusTurn.WaitAsync(_end.Token).ConfigureAwait(false);
        try
        {
            await ReadStatusAsync(_end.Token).ConfigureAwait(false);
        }
        finally
        {
            _statusTurn.Release();
        }
    }

    private bool IsMoreThere()
    {
        lock (_gate)
        {
            _access.Transmit.Ring.ArmCalls();
            return _access.Receive.Ring.ArmCalls();
        }
    }

    /// <param name="status">What the device said.</param>
    /// <param name="begun">Sessions that had begun when it was asked.</param>
    private void OnStatus(uint status, int begun)
    {
        bool isConnected = (status & VirtioVhostUserSpec.FrontendUp) != 0;
        bool isUp = (status & VirtioVhostUserSpec.BackendUp) != 0;
        lock (_gate)
        {
            if (_current is not null && !isConnected && begun == _begun)
            {
                // What came before the end belongs to the session.
                DrainReceived();
                EndCurrent();
            }
            else if (_arming is { } arming && isConnected)
            {
                Connect(arming);
            }
            else if (_arming is { } refused && !isUp)
            {
                _arming = null;
                refused.TrySetResult(null);
            }
        }
    }

    private void EndCurrent()
    {
        VirtioVhostUserChannel? ended;
        lock (_gate)
        {
            ended = _current;
            _current = null;
            _arming?.TrySetResult(null);
            _arming = null;
        }

        ended?.End();
        _sent.Set();
    }

    /// <summary>Under the gate.</summary>
    private VirtioVhostUserChannel Connect(TaskCompletionSource<VirtioVhostUserChannel?> arming)
    {
        _arming = null;
        _begun++;
        _current = new VirtioVhostUserChannel(this, _access);
        _hasMessage = false;
        arming.TrySetResult(_current);
        return _current;
    }

    /// <summary>Takes what came, and gives the buffers back. Under the gate.</summary>
    private void DrainReceived()
    {
        bool hasTaken = false;
        while (_access.Receive.Ring.TryCollect(out uint index, out uint written))
        {
            hasTaken = true;
            DriverBuffer buffer = _receiveBuffers[index];
            int length = (int)Math.Min(written, buffer.Length);
            bool isEnd = length == 0 && (_access.Features & VirtioVhostUserSpec.SessionEndBuffers) != 0;
            DriverFrame frame = default;
            string? problem = isEnd ? null : DriverFrame.TryDecode(buffer.Span[..length], out frame);
            _access.Receive.Ring.TryAdd([], [buffer], index);
            if (isEnd)
            {
                EndAfterMessages();
            }
            else if (problem is not null)
            {
                _log.LogWarning("{Device}: {Problem}", Description, problem);
            }
            else if ((_current ?? (_arming is { } arming ? Connect(arming) : null)) is { } channel)
            {
                _hasMessage = true;
                channel.Take(frame);
            }
        }

        if (hasTaken)
        {
            _access.Receive.Submit();
        }
    }

    /// <summary>The device says that the session is over. Under the gate.</summary>
    private void EndAfterMessages()
    {
        if (_current is not null && _hasMessage)
        {
            EndCurrent();
        }
    }

    /// <summary>Takes buffers back that the device has read. Under the gate.</summary>
    private void CollectSent()
    {
        while (_access.Transmit.Ring.TryCollect(out uint index, out _))
        {
            _freeSendBuffers.Push(index);
            _sent.Set();
        }
    }

    private bool TrySend(VirtioVhostUserChannel channel, byte[] bytes)
    {
        lock (_gate)
        {
            if (_current != channel)
            {
                throw new IOException("the front-end is gone");
            }

            CollectSent();
            if (!_freeSendBuffers.TryPop(out uint index))
            {
                return false;
            }

            DriverBuffer buffer = _sendBuffers[index].Slice(0, (uint)bytes.Length);
            bytes.CopyTo(buffer.Span);
            _access.Transmit.Ring.TryAdd([buffer], [], index);
            _access.Transmit.Submit();
            return true;
        }
    }
}

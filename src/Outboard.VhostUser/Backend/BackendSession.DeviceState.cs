// The device's own state, from host to host: vhost-user "Migrating back-end state".
//
// SET_DEVICE_STATE_FD begins a transfer beside this session (a stream that is full must not keep it from answering);
// CHECK_DEVICE_STATE waits for its end, not for ever, and tells how it went. What is loaded is used only then, when all
// of it has come and been checked. A device that was saved is as it was: its rings may start again.
//
// Both requests have replies of their own that can tell of a failure, so mistakes are answered, not punished.
using Microsoft.Extensions.Logging;
using Outboard.Virtio.State;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    /// <summary>
    /// How long the end of a transfer is awaited, while the front-end waits for us: it asks when it has seen the end.
    /// </summary>
    private static readonly TimeSpan s_transferLimit = TimeSpan.FromSeconds(10);

    /// <summary>How long a transfer that was cancelled may keep its thread; a hostile peer could hold it.</summary>
    private static readonly TimeSpan s_cancelLimit = TimeSpan.FromSeconds(1);

    private StateTransfer? _transfer;

    private async ValueTask<Reply> SetDeviceStateFdAsync(VhostUserMessage message)
    {
        try
        {
            await BeginTransferAsync(message).ConfigureAwait(false);
            return Reply.Value(DeviceStatePayload.NoDescriptor);
        }
        catch (Exception error) when (error is ProtocolException or IOException or DeviceStateException)
        {
            _log.LogWarning("SET_DEVICE_STATE_FD: refused: {Reason}", error.Message);
            return Reply.Value(DeviceStatePayload.NoDescriptor | DeviceStatePayload.Error);
        }
    }

    private async ValueTask<Reply> CheckDeviceStateAsync()
    {
        if (_transfer is not { } transfer)
        {
            _log.LogWarning("CHECK_DEVICE_STATE: no transfer was begun");
            return Reply.Value(DeviceStatePayload.Error);
        }

        _transfer = null;
        try
        {
            byte[]? loaded = await transfer.Task.WaitAsync(s_transferLimit).ConfigureAwait(false);
            if (loaded is not null)
            {
                RequireStopped("CHECK_DEVICE_STATE");
                _device.LoadState(loaded);
            }

            return Reply.Value(0);
        }
        catch (Exception error) when (error is ProtocolException or IOException or DeviceStateException
            or TimeoutException or OperationCanceledException)
        {
            _log.LogWarning("CHECK_DEVICE_STATE: the transfer failed: {Reason}", error.Message);
            return Reply.Value(DeviceStatePayload.Error);
        }
        finally
        {
            await transfer.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task BeginTransferAsync(VhostUserMessage message)
    {
        DeviceStatePayload wanted = message.Read<DeviceStatePayload>();
        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("SET_DEVICE_STATE_FD", "descriptors", "none came");
        }

        if (wanted.Direction > DeviceStatePayload.Load || wanted.Phase != DeviceStatePayload.Stopped)
        {
            throw new ProtocolException(
                "SET_DEVICE_STATE_FD", "direction", $"direction {wanted.Direction}, phase {wanted.Phase}");
        }

        RequireStopped("SET_DEVICE_STATE_FD");
        await EndTransferAsync().ConfigureAwait(false);
        byte[]? saved = wanted.Direction == DeviceStatePayload.Save ? _device.SaveState() : null;
        _transfer = new StateTransfer(message.Attachments[0].ToStateStream(), saved);
    }

    private async Task EndTransferAsync()
    {
        if (_transfer is { } transfer)
        {
            _transfer = null;
            await transfer.DisposeAsync().ConfigureAwait(false);
        }
    }

    private void RequireStopped(string request)
    {
        if (Array.Find(_vrings, vring => vring.Running is not null) is { } running)
        {
            throw new ProtocolException(
                request, "state", $"queue {running.Index} is running: stop all by GET_VRING_BASE first");
        }
    }

    /// <summary>A transfer that goes on.</summary>
    private sealed class StateTransfer : IAsyncDisposable
    {
        private readonly CancellationTokenSource _end = new();

        internal StateTransfer(StateStream stream, byte[]? saved) => Task = RunAsync(stream, saved);

        /// <summary>What was read; null after a state was written.</summary>
        internal Task<byte[]?> Task { get; }

        public async ValueTask DisposeAsync()
        {
            await _end.CancelAsync().ConfigureAwait(false);
            await System.Threading.Tasks.Task.WhenAny(Task, System.Threading.Tasks.Task.Delay(s_cancelLimit))
                .ConfigureAwait(false);
            _end.Dispose();
        }

        private async Task<byte[]?> RunAsync(StateStream stream, byte[]? saved)
        {
            using (stream)
            {
                if (saved is null)
                {
                    return await stream.ReadToEndAsync(DeviceStateFormat.MaxBytes, _end.Token).ConfigureAwait(false);
                }

                await stream.WriteAsync(saved, _end.Token).ConfigureAwait(false);
                return null;
            }
        }
    }
}

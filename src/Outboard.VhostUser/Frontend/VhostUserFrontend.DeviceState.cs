// Live migration as a front-end drives it, second part: the device's own state, opaque here.
//
//   source       stop all queues, SaveDeviceStateAsync
//   destination  LoadDeviceStateAsync, then start the queues
//
// Either fails by an exception, and leaves a device that can go on as it was.
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>Longest state that is taken from a back-end: file systems of peers have some megabytes.</summary>
    private const int MaxStateBytes = 256 << 20;

    /// <summary>Takes the device's state. All queues are stopped.</summary>
    /// <exception cref="ProtocolException">The back-end cannot save it.</exception>
    public async Task<byte[]> SaveDeviceStateAsync(CancellationToken cancellation = default)
    {
        StateStream stream = await SetDeviceStateFdAsync(loads: false, cancellation).ConfigureAwait(false);
        byte[] state;
        using (stream)
        {
            state = await TransferAsync(
                token => stream.ReadToEndAsync(MaxStateBytes, token), cancellation).ConfigureAwait(false);
        }

        await CheckDeviceStateAsync(cancellation).ConfigureAwait(false);
        return state;
    }

    /// <summary>Gives a device its state, before its queues start.</summary>
    /// <exception cref="ProtocolException">The back-end cannot load it.</exception>
    public async Task LoadDeviceStateAsync(ReadOnlyMemory<byte> state, CancellationToken cancellation = default)
    {
        StateStream stream = await SetDeviceStateFdAsync(loads: true, cancellation).ConfigureAwait(false);
        using (stream)
        {
            await TransferAsync(
                async token =>
                {
                    await stream.WriteAsync(state, token).ConfigureAwait(false);
                    return true;
                },
                cancellation).ConfigureAwait(false);
        }

        await CheckDeviceStateAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>SET_DEVICE_STATE_FD: begins a transfer.</summary>
    /// <param name="loads">Whether the back-end loads; otherwise it saves.</param>
    /// <param name="cancellation">Gives up waiting for the reply.</param>
    /// <returns>The stream: a pipe of ours, or what the back-end would rather have.</returns>
    public async Task<StateStream> SetDeviceStateFdAsync(bool loads, CancellationToken cancellation = default)
    {
        (StateStream kept, Attachment passed) = _channel.CreateStateStream(peerWrites: !loads);
        try
        {
            StateStream? other = null;
            uint direction = loads ? DeviceStatePayload.Load : DeviceStatePayload.Save;
            byte[] payload = VhostUserMessage.PayloadOf(new DeviceStatePayload(direction, DeviceStatePayload.Stopped));
            ReadOnlyMemory<byte> reply = await RequestAsync(
                FrontendRequest.SetDeviceStateFd,
                payload,
                message => other = message.Attachments.Count == 1 ? message.Attachments[0].ToStateStream() : null,
                cancellation,
                passed).ConfigureAwait(false);
            ulong answer = Value(RequestTable.Frontend(FrontendRequest.SetDeviceStateFd), reply);
            if ((answer & DeviceStatePayload.ErrorMask) != 0)
            {
                other?.Dispose();
                throw new ProtocolException("SET_DEVICE_STATE_FD", "reply", $"the back-end refused (0x{answer:x})");
            }

            if ((answer & DeviceStatePayload.NoDescriptor) == 0 && other is null)
            {
                throw BrokenReply("SET_DEVICE_STATE_FD", "descriptors", "none came with a reply that tells of one");
            }

            if (other is null)
            {
                return kept;
            }

            kept.Dispose();
            return other;
        }
        catch
        {
            kept.Dispose();
            throw;
        }
    }

    /// <summary>CHECK_DEVICE_STATE: how the transfer went. The stream is closed.</summary>
    /// <exception cref="ProtocolException">It failed.</exception>
    public async Task CheckDeviceStateAsync(CancellationToken cancellation = default)
    {
        ulong answer = await RequestValueAsync(FrontendRequest.CheckDeviceState, cancellation).ConfigureAwait(false);
        if (answer != 0)
        {
            throw new ProtocolException("CHECK_DEVICE_STATE", "reply", $"the transfer failed ({answer})");
        }
    }

    private async Task<T> TransferAsync<T>(Func<CancellationToken, Task<T>> transfer, CancellationToken cancellation)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(_options.ReplyTimeout);
        try
        {
            return await transfer(limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException error) when (!cancellation.IsCancellationRequested)
        {
            string problem = $"not within {_options.ReplyTimeout.TotalSeconds} s";
            throw new ProtocolException("SET_DEVICE_STATE_FD", "transfer", problem, error);
        }
        catch (IOException error)
        {
            throw new ProtocolException("SET_DEVICE_STATE_FD", "transfer", error.Message, error);
        }
    }
}

// The back-end's requests to this front-end, received by a task of its own.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    private VhostUserChannel? _backendChannel;
    private Task _backendRequests = Task.CompletedTask;

    /// <summary>Raised, on a pool thread, when the back-end tells that its configuration space changed.</summary>
    public event Action? ConfigChanged;

    private async Task OpenBackendChannelAsync(CancellationToken cancellation)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        _backendChannel = new SocketChannel(ours);
        using (theirs)
        {
            await RequestAsync(
                FrontendRequest.SetBackendReqFd,
                [],
                cancellation,
                new DescriptorAttachment(theirs.DuplicateDescriptor()))
                .ConfigureAwait(false);
        }

        _backendRequests = ServeBackendRequestsAsync(_backendChannel);
    }

    private async Task CloseBackendChannelAsync()
    {
        if (_backendChannel is { } channel)
        {
            _backendChannel = null;
            channel.Close();
            try
            {
                await _backendRequests.ConfigureAwait(false);
            }
            finally
            {
                SharedObjects.RemoveAll(this);
                await channel.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private async Task ServeBackendRequestsAsync(VhostUserChannel channel)
    {
        try
        {
            while (await channel.ReceiveAsync().ConfigureAwait(false) is { } message)
            {
                using (message)
                {
                    await AnswerAsync(channel, message).ConfigureAwait(false);
                }
            }
        }
        catch (IOException)
        {
            // The back-end is gone; the next request on the main channel tells.
        }
        catch (ProtocolException)
        {
            channel.Close();
        }
        catch (ObjectDisposedException)
        {
            // This side is going away while a request is being carried out.
        }
    }

    /// <summary>Carries out one request of the back-end and answers it, when it wants an answer.</summary>
    private async Task AnswerAsync(VhostUserChannel channel, VhostUserMessage message)
    {
        RequestRow? row = RequestTable.Backend(message.Request);
        bool isAllowed = row is not null && row.Size.Allows((uint)message.Payload.Length)
            && message.Attachments.Count <= row.MaxDescriptors && (row.Gate & ~ProtocolFeatures) == 0;
        (bool served, Attachment? found) = isAllowed
            ? await ServeAsync(channel, message).ConfigureAwait(false)
            : (false, null);
        if (message.NeedsReply || row is { HasOwnReply: true })
        {
            byte[] status = VhostUserMessage.PayloadOf(served ? 0UL : 1UL);
            Attachment[] attachments = found is null ? [] : [found];
            VhostUserMessage reply = new(message.Request, MessageFlags.Reply, status, attachments);
            await channel.SendAsync(reply).ConfigureAwait(false);
        }
    }

    /// <summary>Carries out one request of the back-end.</summary>
    /// <returns>False when it is refused; and what goes with the answer.</returns>
    private async ValueTask<(bool Served, Attachment? Found)> ServeAsync(
        VhostUserChannel channel, VhostUserMessage message)
    {
        if ((BackendRequest)message.Request == BackendRequest.SharedObjectLookup)
        {
            Attachment? found = await SharedObjectLookupAsync(message, channel).ConfigureAwait(false);
            return (found is not null, found);
        }

        if ((BackendRequest)message.Request == BackendRequest.IotlbMsg)
        {
            return (await IotlbMsgAsync(message).ConfigureAwait(false), null);
        }

        return (Serve(message), null);
    }

    private bool Serve(VhostUserMessage message) => (BackendRequest)message.Request switch
    {
        BackendRequest.ConfigChangeMsg => ConfigChangeMsg(),
        BackendRequest.VringCall => VringCall(message),
        BackendRequest.VringErr => VringErr(message),
        BackendRequest.SharedObjectAdd => SharedObjectAdd(message),
        BackendRequest.SharedObjectRemove => SharedObjectRemove(message),
        BackendRequest.VringHostNotifierMsg => VringHostNotifierMsg(message),
        BackendRequest.ShmemMap => ShmemMap(message),
        BackendRequest.ShmemUnmap => ShmemUnmap(message),
        _ => false,
    };

    private bool ConfigChangeMsg()
    {
        ConfigChanged?.Invoke();
        return true;
    }
}

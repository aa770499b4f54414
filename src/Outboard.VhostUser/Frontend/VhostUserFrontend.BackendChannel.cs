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
                    bool served = Serve(message);
                    if (message.NeedsReply)
                    {
                        byte[] status = VhostUserMessage.PayloadOf(served ? 0UL : 1UL);
                        VhostUserMessage reply = new(message.Request, MessageFlags.Reply, status);
                        await channel.SendAsync(reply).ConfigureAwait(false);
                    }
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
    }

    /// <summary>Carries out one request of the back-end.</summary>
    /// <returns>False when it is refused.</returns>
    private bool Serve(VhostUserMessage message)
    {
        RequestRow? row = RequestTable.Backend(message.Request);
        if (row is null || row.Support == RequestSupport.NotBuilt || !row.Size.Allows((uint)message.Payload.Length)
            || (row.Gate & ~ProtocolFeatures) != 0)
        {
            return false;
        }

        return (BackendRequest)message.Request switch
        {
            BackendRequest.ConfigChangeMsg => ConfigChangeMsg(),
            _ => false,
        };
    }

    private bool ConfigChangeMsg()
    {
        ConfigChanged?.Invoke();
        return true;
    }
}

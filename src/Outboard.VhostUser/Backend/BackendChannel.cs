// The back-end's own requests to the front-end (the socket of SET_BACKEND_REQ_FD).
//
// Nothing that answers the front-end ever waits here: a front-end may block while it waits for a reply of ours, and it
// answers these requests only afterwards. Requests are posted, and sent in order by a task of their own.
using System.Threading.Channels;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>Sends requests to the front-end.</summary>
internal sealed class BackendChannel : IAsyncDisposable
{
    /// <summary>
    /// Requests that may wait; a front-end that reads nothing loses the rest, which it would not miss.
    /// </summary>
    private const int MaxWaiting = 64;

    private VhostUserChannel? _channel;
    private Channel<(BackendRequest Request, byte[] Payload)>? _waiting;
    private Task _sender = Task.CompletedTask;

    /// <summary>Uses another channel from now on (front-ends may send one at each activation).</summary>
    internal async Task ReplaceAsync(VhostUserChannel channel)
    {
        await DisposeAsync().ConfigureAwait(false);
        _channel = channel;
        _waiting = System.Threading.Channels.Channel.CreateBounded<(BackendRequest, byte[])>(
            new BoundedChannelOptions(MaxWaiting) { FullMode = BoundedChannelFullMode.DropWrite, SingleReader = true });
        _sender = SendAllAsync(channel, _waiting.Reader);
    }

    /// <summary>Queues a request that wants no reply. From any thread.</summary>
    internal void Post(BackendRequest request, byte[] payload) => _waiting?.Writer.TryWrite((request, payload));

    public async ValueTask DisposeAsync()
    {
        _waiting?.Writer.TryComplete();
        _channel?.Close();
        await _sender.ConfigureAwait(false);
        if (_channel is not null)
        {
            await _channel.DisposeAsync().ConfigureAwait(false);
        }

        _channel = null;
        _waiting = null;
    }

    private static async Task SendAllAsync(
        VhostUserChannel channel, ChannelReader<(BackendRequest Request, byte[] Payload)> waiting)
    {
        try
        {
            await foreach ((BackendRequest request, byte[] payload) in waiting.ReadAllAsync().ConfigureAwait(false))
            {
                VhostUserMessage message = new((uint)request, MessageFlags.Version1, payload);
                await channel.SendAsync(message).ConfigureAwait(false);
            }
        }
        catch (IOException)
        {
            // The front-end closed this channel; the main one tells whether it is gone.
        }
    }
}

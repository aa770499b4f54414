// A back-end that ends when it is disposed, and with it its connections.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;

namespace Outboard.Tests.VhostUser.Frontend;

internal sealed class EndingBackend : IAsyncDisposable
{
    private readonly CancellationTokenSource _end = new();
    private readonly Task _serving;

    internal EndingBackend(VirtioDevice device, string path, VhostUserBackendOptions? options = null)
    {
        UnixListener listener = UnixListener.Bind(path);
        _serving = ServeAsync(device, listener, options ?? new VhostUserBackendOptions());
    }

    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
        _end.Dispose();
    }

    private async Task ServeAsync(VirtioDevice device, UnixListener listener, VhostUserBackendOptions options)
    {
        using (listener)
        {
            await VhostUserBackend.ServeAsync(device, listener, options, _end.Token);
        }
    }
}

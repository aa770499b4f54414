// A device behind a handle that may be lost (a socket's other end): nothing interrupts then, so somebody has to look.
using Outboard.Linux.Events;
using Outboard.Pci.Driver;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>Has the driver look at its device when that is lost.</summary>
internal sealed class LossWatch : IAsyncDisposable
{
    private readonly CancellationTokenSource _end = new();
    private readonly Task _watching;

    /// <param name="handle">The device.</param>
    /// <param name="interrupt">What has the driver look; disposed after this object.</param>
    internal LossWatch(PciHandle handle, EventFd interrupt) => _watching = WatchAsync(handle, interrupt);

    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync().ConfigureAwait(false);
        await _watching.ConfigureAwait(false);
        _end.Dispose();
    }

    private async Task WatchAsync(PciHandle handle, EventFd interrupt)
    {
        try
        {
            await handle.WaitForLossAsync(_end.Token).ConfigureAwait(false);
            _ = interrupt.Signal();
        }
        catch (OperationCanceledException)
        {
            // Let go of.
        }
    }
}

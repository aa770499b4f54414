// A signal for one waiter: set any number of times before somebody waits, it is one signal.
using System.Threading.Channels;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>A signal. Set from any thread; one waits.</summary>
internal sealed class WakeSignal
{
    private readonly Channel<bool> _signals = System.Threading.Channels.Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    internal void Set() => _signals.Writer.TryWrite(true);

    internal async ValueTask WaitAsync(CancellationToken cancellation) =>
        await _signals.Reader.ReadAsync(cancellation).ConfigureAwait(false);
}

// When a back-end looks whether its storage was resized: on SIGHUP, and by a timer when that was asked for.
using System.Runtime.InteropServices;

namespace Outboard.Cli.Serving;

/// <summary>Calls back when it is time to look at the size.</summary>
internal sealed class ResizeWatch : IDisposable
{
    private readonly PosixSignalRegistration _hangup;
    private readonly Timer? _timer;

    /// <param name="look">Looks. Called on any thread; two calls may overlap.</param>
    /// <param name="interval">How often to look without a signal; null for never.</param>
    public ResizeWatch(Action look, TimeSpan? interval)
    {
        _hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
        {
            context.Cancel = true;
            look();
        });
        _timer = interval is { } period ? new Timer(_ => look(), null, period, period) : null;
    }

    public void Dispose()
    {
        _timer?.Dispose();
        _hangup.Dispose();
    }
}

// The log of a running back-end: single lines on standard error, "outboard-block: warning: ...". Told apart from a
// logging framework by what it lacks: scopes, sinks, colours, and their 20 ms at the start.
using Microsoft.Extensions.Logging;

namespace Outboard.Cli.Text;

/// <summary>Writes messages of at least one level.</summary>
internal sealed class StandardErrorLog(string programName, LogLevel least) : ILogger
{
    public bool IsEnabled(LogLevel logLevel) => logLevel >= least && logLevel != LogLevel.None;

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public void Log<TState>(
        LogLevel logLevel,
        EventId eventId,
        TState state,
        Exception? exception,
        Func<TState, Exception?, string> formatter)
    {
        if (!IsEnabled(logLevel))
        {
            return;
        }

        string text = formatter(state, exception);
        if (exception is not null)
        {
            // The trace only where somebody asked for everything.
            text += least <= LogLevel.Debug ? $": {exception}" : $": {exception.GetType().Name}: {exception.Message}";
        }

        ErrorLine.Write($"{programName}: {Prefix(logLevel)}{text}");
    }

    private static string Prefix(LogLevel level) => level switch
    {
        LogLevel.Critical => "critical: ",
        LogLevel.Error => "error: ",
        LogLevel.Warning => "warning: ",
        LogLevel.Debug or LogLevel.Trace => "debug: ",
        _ => string.Empty,
    };
}

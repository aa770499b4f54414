// Keeps what a back-end logs.
using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Outboard.Tests.VhostUser;

internal sealed class LogRecorder : ILogger
{
    private readonly ConcurrentQueue<(LogLevel Level, string Text)> _entries = new();

    public IEnumerable<string> Critical => At(LogLevel.Critical);

    public IEnumerable<string> Warnings => At(LogLevel.Warning);

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(
        LogLevel logLevel,
        EventId eventId,
        TState state,
        Exception? exception,
        Func<TState, Exception?, string> formatter) =>
        _entries.Enqueue((logLevel, $"{formatter(state, exception)} {exception?.Message}"));

    private IEnumerable<string> At(LogLevel level) =>
        _entries.Where(entry => entry.Level == level).Select(entry => entry.Text);
}

// How much a back-end logs, for every command that serves something.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Text;

namespace Outboard.Cli.Serving;

/// <summary>The two switches, and the level that follows from them.</summary>
internal sealed class LogOptions
{
    private readonly SwitchOption _verbose = new("--verbose", "Log more.");
    private readonly SwitchOption _quiet = new("--quiet", "Log warnings and errors only.");

    /// <summary>The options in the order of --help; they come last.</summary>
    public IEnumerable<Option> All => [_verbose, _quiet];

    /// <summary>The least level that is logged.</summary>
    /// <exception cref="CommandLineException">Both are given.</exception>
    public LogLevel Read(ParseResult result)
    {
        SwitchOption.RefuseBoth(result, _verbose, _quiet);
        return _verbose.Read(result) ? LogLevel.Debug
            : _quiet.Read(result) ? LogLevel.Warning
            : LogLevel.Information;
    }
}

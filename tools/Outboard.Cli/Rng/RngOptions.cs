// The options of "outboard rng", in the order in which --help shows them.
using System.CommandLine;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;

namespace Outboard.Cli.Rng;

/// <summary>The settings of the entropy back-end. Null means that nothing was said.</summary>
internal sealed record RngSettings(ServingSettings Serving, string? SourcePath, long MaxBytesPerSecond);

/// <summary>The options, and how they become <see cref="RngSettings"/>.</summary>
internal sealed class RngOptions
{
    private readonly ServingOptions _serving = new();

    private readonly ValueOption<string> _source = ValueOption.Text(
        "--source", "PATH", "Take the bytes from a device (/dev/hwrng) or a file. [default: the system's generator]");

    private readonly ValueOption<long?> _maxRate = ValueOption.Size(
        "--max-rate", "Most bytes that the guest gets in a second. [default: no limit]");

    public void AddTo(Command command)
    {
        Option[] all = [.. _serving.Sockets, _source, _maxRate, .. _serving.Last];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public RngSettings Read(ParseResult result) =>
        new(_serving.Read(result), _source.Read(result), _maxRate.Read(result) ?? 0);
}

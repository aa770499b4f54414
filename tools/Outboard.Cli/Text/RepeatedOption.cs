// An option that may be given several times.
using System.CommandLine;

namespace Outboard.Cli.Text;

/// <summary>A text option whose values are kept in their order.</summary>
internal sealed class RepeatedOption : Option<string[]>
{
    public RepeatedOption(string name, string valueName, string description)
        : base(name)
    {
        Description = description;
        HelpName = valueName;
        Arity = ArgumentArity.OneOrMore;
    }

    /// <summary>The values; none when the option was not given.</summary>
    public string[] Read(ParseResult result) =>
        result.GetResult(this) is { } given ? [.. given.Tokens.Select(token => token.Value)] : [];
}

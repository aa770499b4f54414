// Options whose mistakes are told in this program's way: the option, the value, what would be right. To the parser all
// of them are text: each type that the parser itself is made to convert costs compilation at every start.
using System.CommandLine;
using System.Globalization;

namespace Outboard.Cli.Text;

/// <summary>A switch: present or not, without a value.</summary>
internal sealed class SwitchOption : Option<string?>
{
    public SwitchOption(string name, string description)
        : base(name)
    {
        Description = description;
        Arity = ArgumentArity.Zero;
    }

    /// <summary>Whether the switch was given.</summary>
    public bool Read(ParseResult result) => result.GetResult(this) is not null;

    /// <summary>Refuses two switches that contradict each other.</summary>
    /// <exception cref="CommandLineException">Both are given.</exception>
    public static void RefuseBoth(ParseResult result, SwitchOption one, SwitchOption other)
    {
        if (one.Read(result) && other.Read(result))
        {
            throw new CommandLineException($"{one.Name} and {other.Name} exclude each other: give one of them");
        }
    }
}

/// <summary>An option with a value. The type is nullable: null means that the option was not given.</summary>
internal sealed class ValueOption<T> : Option<string?>
{
    private readonly string _remedy;
    private readonly Func<string, T?> _parse;

    /// <param name="name">The option's name.</param>
    /// <param name="valueName">What --help calls the value.</param>
    /// <param name="description">What --help says.</param>
    /// <param name="remedy">What to give instead of a value that is wrong.</param>
    /// <param name="parse">Reads a value; gives null when it is wrong.</param>
    public ValueOption(string name, string valueName, string description, string remedy, Func<string, T?> parse)
        : base(name)
    {
        Description = description;
        HelpName = valueName;
        Arity = ArgumentArity.ExactlyOne;
        _remedy = remedy;
        _parse = parse;
    }

    /// <summary>The value.</summary>
    /// <exception cref="CommandLineException">It is wrong.</exception>
    public T? Read(ParseResult result)
    {
        if (result.GetResult(this) is null)
        {
            return default;
        }

        string text = result.GetValue(this) ?? string.Empty;
        return _parse(text) is { } value ? value : throw new CommandLineException($"{Name}={text}: {_remedy}");
    }
}

/// <summary>The kinds of values.</summary>
internal static class ValueOption
{
    /// <summary>A text that is not empty. It does not begin as an option does: then the value was forgotten.</summary>
    public static ValueOption<string> Text(string name, string valueName, string description) => new(
        name, valueName, description, $"give {valueName}",
        text => text.Length > 0 && !text.StartsWith("--", StringComparison.Ordinal) ? text : null);

    /// <summary>Processors, such as 1 or 0,1.</summary>
    public static ValueOption<IReadOnlyList<int>> Processors(string name, string description) => new(
        name, "LIST", description, "give processor numbers, such as 1 or 0,1", ParseProcessors);

    /// <summary>A whole number within bounds.</summary>
    public static ValueOption<int?> Number(
        string name, string valueName, string description, int least, int most) => new(
        name, valueName, description, $"give a whole number from {least} to {most}",
        text => ParseNumber(text) is { } number && number >= least && number <= most ? (int)number : null);

    /// <summary>A whole number of any size.</summary>
    public static ValueOption<long?> LargeNumber(string name, string valueName, string description) => new(
        name, valueName, description, "give a whole number, 0 or more", ParseNumber);

    /// <summary>A power of two within bounds.</summary>
    public static ValueOption<int?> PowerOfTwo(
        string name, string valueName, string description, int least, int most) => new(
        name, valueName, description, $"give a power of two from {least} to {most}",
        text => ParseNumber(text) is { } number && number >= least && number <= most && long.IsPow2(number)
            ? (int)number : null);

    /// <summary>A fraction from 0 to 1.</summary>
    public static ValueOption<double?> Fraction(string name, string valueName, string description) => new(
        name, valueName, description, "give a fraction from 0 to 1, for example 0.01",
        text => double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double number)
            && number is >= 0 and <= 1 ? number : null);

    /// <summary>A time in seconds, fractions included.</summary>
    public static ValueOption<double?> Seconds(string name, string description, double most) => new(
        name, "SECONDS", description, $"give seconds, such as 5 or 0.5, up to {most}",
        text => double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double number)
            && number <= most ? number : null);

    /// <summary>A size in bytes, see <see cref="SizeText"/>.</summary>
    public static ValueOption<long?> Size(string name, string description) => new(
        name, "SIZE", description, "give a size in bytes, or with K, M, G or T as in 64M",
        text => SizeText.TryParse(text, out long bytes) && bytes > 0 ? bytes : null);

    /// <summary>One of some words.</summary>
    public static ValueOption<string> Choice(string name, string description, params string[] words) => new(
        name, string.Join('|', words), description, $"give one of {string.Join(", ", words)}",
        text => words.Contains(text) ? text : null);

    private static long? ParseNumber(string text) =>
        long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : null;

    private static int[]? ParseProcessors(string text)
    {
        string[] parts = text.Split(',');
        int[] processors = new int[parts.Length];
        for (int i = 0; i < parts.Length; i++)
        {
            if (!int.TryParse(parts[i], NumberStyles.None, CultureInfo.InvariantCulture, out processors[i]))
            {
                return null;
            }
        }

        return processors;
    }
}

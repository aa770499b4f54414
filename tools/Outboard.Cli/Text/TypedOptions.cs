// Options whose mistakes are told in this program's way: the option, the value, what would be right.
using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;

namespace Outboard.Cli.Text;

internal static class TypedOptions
{
    /// <summary>A switch: present or not, without a value.</summary>
    public static Option<bool> Switch(string name, string description) =>
        new(name) { Description = description, Arity = ArgumentArity.Zero };

    /// <summary>A text, which must not be empty.</summary>
    public static Option<string?> Text(string name, string valueName, string description) => new(name)
    {
        Description = description,
        HelpName = valueName,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (text.Length == 0)
            {
                result.AddError($"{name}: empty; give {valueName}");
            }
            else if (text.StartsWith("--", StringComparison.Ordinal))
            {
                // The value was forgotten, and the next option taken for it.
                result.AddError($"{name}: {text} follows; give {valueName}");
            }

            return text;
        },
    };

    /// <summary>A whole number within bounds.</summary>
    public static Option<int?> Number(string name, string valueName, string description, int least, int most) => new(name)
    {
        Description = description,
        HelpName = valueName,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && number >= least && number <= most)
            {
                return number;
            }

            result.AddError($"{name}={text}: give a whole number from {least} to {most}");
            return null;
        },
    };

    /// <summary>A whole number of any size.</summary>
    public static Option<long?> Number64(string name, string valueName, string description) => new(name)
    {
        Description = description,
        HelpName = valueName,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number))
            {
                return number;
            }

            result.AddError($"{name}={text}: give a whole number from 0 to {long.MaxValue}");
            return null;
        },
    };

    /// <summary>A whole number that is a power of two, within bounds.</summary>
    public static Option<int?> PowerOfTwo(string name, string valueName, string description, int least, int most)
    {
        Option<int?> option = Number(name, valueName, description, least, most);
        option.Validators.Add(result =>
        {
            string text = result.Tokens.Count == 1 ? result.Tokens[0].Value : string.Empty;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && number >= least && number <= most && !int.IsPow2(number))
            {
                result.AddError($"{name}={text}: give a power of two from {least} to {most}");
            }
        });
        return option;
    }

    /// <summary>A fraction from 0 to 1.</summary>
    public static Option<double?> Fraction(string name, string valueName, string description) => new(name)
    {
        Description = description,
        HelpName = valueName,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double number)
                && number is >= 0 and <= 1)
            {
                return number;
            }

            result.AddError($"{name}={text}: give a fraction from 0 to 1, for example 0.01");
            return null;
        },
    };

    /// <summary>A size in bytes, see <see cref="SizeText"/>.</summary>
    public static Option<long?> Size(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "SIZE",
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (SizeText.TryParse(text, out long bytes) && bytes > 0)
            {
                return bytes;
            }

            result.AddError($"{name}={text}: give a size in bytes, or with K, M, G or T as in 64M");
            return null;
        },
    };

    /// <summary>One of some words.</summary>
    public static Option<string?> Choice(string name, string description, params string[] words) => new(name)
    {
        Description = description,
        HelpName = string.Join('|', words),
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (!words.Contains(text))
            {
                result.AddError($"{name}={text}: give one of {string.Join(", ", words)}");
            }

            return text;
        },
    };
}

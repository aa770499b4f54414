// Sizes as people write them: a number of bytes, or a number and one of K, M, G, T (powers of 1024).
using System.Globalization;

namespace Outboard.Cli.Text;

internal static class SizeText
{
    private const string Units = "KMGT";
    private const int BitsPerUnit = 10;

    /// <summary>Reads a size.</summary>
    /// <returns>False when the text is none, or is larger than a file can be.</returns>
    public static bool TryParse(string text, out long bytes)
    {
        bytes = 0;
        ReadOnlySpan<char> digits = text;
        int unit = text is [.., var last] ? Units.IndexOf(char.ToUpperInvariant(last), StringComparison.Ordinal) : -1;
        int shift = (unit + 1) * BitsPerUnit;
        if (unit >= 0)
        {
            digits = digits[..^1];
        }

        if (!long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
            || number > long.MaxValue >> shift)
        {
            return false;
        }

        bytes = number << shift;
        return true;
    }

    /// <summary>A size for humans, without loss: the largest unit that divides it.</summary>
    public static string Format(long bytes)
    {
        int unit = 0;
        while (unit < Units.Length && bytes != 0 && bytes % (1L << ((unit + 1) * BitsPerUnit)) == 0)
        {
            unit++;
        }

        return unit == 0 ? $"{bytes}" : $"{bytes >> (unit * BitsPerUnit)}{Units[unit - 1]}";
    }
}

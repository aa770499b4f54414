// Writing to standard error: one line for one message, whatever is in it. Bytes go out in one write, so that lines of
// several programs in one log do not mix; the Console class is not used, since it costs milliseconds at the start.
using System.Text;

namespace Outboard.Cli.Text;

internal static class ErrorLine
{
    /// <summary>The text without line breaks and other control characters, which a file name may have.</summary>
    public static string From(string text)
    {
        string trimmed = text.Trim();
        return trimmed.AsSpan().IndexOfAnyInRange('\0', '\x1f') < 0
            ? trimmed
            : string.Create(trimmed.Length, trimmed, static (line, source) =>
            {
                for (int i = 0; i < line.Length; i++)
                {
                    line[i] = char.IsControl(source[i]) ? ' ' : source[i];
                }
            });
    }

    /// <summary>Writes one line.</summary>
    public static void Write(string text)
    {
        byte[] line = Encoding.UTF8.GetBytes(From(text) + "\n");
        try
        {
            using Stream error = Console.OpenStandardError();
            error.Write(line);
        }
        catch (IOException)
        {
            // Nobody reads; there is no better place to tell it.
        }
    }
}

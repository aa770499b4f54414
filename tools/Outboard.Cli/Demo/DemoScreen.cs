// What the demo shows: one line for each step, rewritten when it is done if a person looks on.
using System.Globalization;

namespace Outboard.Cli.Demo;

internal sealed class DemoScreen
{
    private const int TitleWidth = 34;

    private readonly bool _isTerminal = !Console.IsOutputRedirected;
    private string? _current;

    /// <summary>A step begins.</summary>
    public void Begin(string title)
    {
        _current = title;
        if (_isTerminal)
        {
            Console.Write($"  ..  {title}");
        }
    }

    /// <summary>The step goes on: shown to a person only.</summary>
    public void Update(string detail)
    {
        if (_isTerminal)
        {
            Console.Write($"\r\e[K  ..  {_current?.PadRight(TitleWidth)} {detail}");
        }
    }

    /// <summary>The step is done.</summary>
    public void Done(string detail) => Finish("ok", detail);

    /// <summary>The step failed.</summary>
    public void Failed(string detail) => Finish("!!", detail);

    /// <summary>The demo is given up in the middle of a step.</summary>
    public void Abandon()
    {
        if (_current is not null)
        {
            Failed("given up");
        }
    }

    public static void Write(string text) => Console.WriteLine(text);

    /// <summary>A line of numbers, right-aligned in columns.</summary>
    public static void Row(params ReadOnlySpan<object> cells)
    {
        const int width = 10;
        string line = "  ";
        foreach (object cell in cells)
        {
            string format = cell is double ? "{0:N1}" : "{0:N0}";
            line += string.Format(CultureInfo.InvariantCulture, format, cell).PadLeft(width);
        }

        Console.WriteLine(line);
    }

    private void Finish(string mark, string detail)
    {
        string start = _isTerminal ? "\r\e[K" : string.Empty;
        Console.WriteLine($"{start}  {mark}  {_current?.PadRight(TitleWidth)} {detail}");
        _current = null;
    }
}

// Draws the curves of docs/BENCHMARKS.md: memory and requests by the number of devices in one process, and requests by
// the number of queues.
//   dotnet run --file eng/bench/curves.cs -- docs
// Devices come from the table "Many devices in one process" of the page, queues from bench/queues.tsv beside it (lines
// as report.cs describes them). Writes bench-devices.svg and bench-queues.svg. Not here: measuring.
using System.Globalization;
using System.Text;

string folder = args[0];
string[][] rows =
[
    .. File.ReadLines($"{folder}/BENCHMARKS.md")
        .SkipWhile(line => !line.StartsWith("## Many devices", StringComparison.Ordinal))
        .Skip(1).TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal))
        .Select(line => line.Split('|', StringSplitOptions.TrimEntries))
        .Where(cells => cells.Length == 10 && char.IsAsciiDigit(cells[1].FirstOrDefault())),
];
Point[] column(int cell) => [.. rows.Select(row => new Point(Curve.Number(row[1]), Curve.Number(row[cell])))];
File.WriteAllText($"{folder}/bench-devices.svg", Curve.Draw(
    "Devices in one process, two threads",
    "devices (logarithmic)",
    [new("MiB resident", "#2a7f62", column(3)), new("kIOPS", "#4a6fa5", column(7))]));

var queues = File.ReadLines($"{folder}/bench/queues.tsv").Select(line => line.Split('\t'))
    .Where(cells => cells is ["load", "queues", "two", "irq", ..])
    .ToLookup(
        cells => cells[5], cells => new Point(Curve.Number(cells[4].Split(' ')[^1]), Curve.Number(cells[7]) / 1000));
Point[] of(params string[] names) =>
[
    .. names.SelectMany(name => queues[name].GroupBy(run => run.X))
        .Select(runs => new Point(runs.Key, Curve.Median([.. runs.Select(run => run.Y)])))
        .GroupBy(point => point.X)
        .Select(best => new Point(best.Key, best.Max(point => point.Y)))
        .OrderBy(point => point.X),
];
File.WriteAllText($"{folder}/bench-queues.svg", Curve.Draw(
    "kIOPS of a null device, drivers that sleep, depth 32 each, two processors",
    "queues (logarithmic)",
    [
        new("outboard", "#c0562b", of("ours")), new("qemu-storage-daemon", "#2a7f62", of("qsd")),
        new("Rust (the better of two)", "#4a6fa5", of("rust", "rust_polling")),
    ]));

internal sealed record Point(double X, double Y);

internal sealed record Line(string Name, string Colour, Point[] Points);

/// <summary>Lines over a logarithmic axis; the other one begins at 0.</summary>
internal static class Curve
{
    private const int Width = 760;
    private const int Height = 380;
    private const int Left = 70;
    private const int Right = 30;
    private const int Top = 84;
    private const int Bottom = 60;

    public static double Number(string text) => double.Parse(text, CultureInfo.InvariantCulture);

    public static double Median(double[] values)
    {
        Array.Sort(values);
        return (values[(values.Length - 1) / 2] + values[values.Length / 2]) / 2;
    }

    public static string Draw(string title, string axis, Line[] lines)
    {
        double[] xs = [.. lines.SelectMany(line => line.Points).Select(point => point.X).Distinct().Order()];
        double most = lines.SelectMany(line => line.Points).Max(point => point.Y);
        double step = Math.Pow(10, Math.Floor(Math.Log10(most)));
        step = most / step < 3 ? step / 2 : step;
        double top = Math.Ceiling(most / step) * step;
        double range = Math.Max(1e-9, Math.Log(xs[^1] / xs[0]));
        double x(double value) => Left + (Math.Log(value / xs[0]) / range * (Width - Left - Right));
        double y(double value) => Height - Bottom - (value / top * (Height - Top - Bottom));
        StringBuilder svg = new();
        svg.Append(CultureInfo.InvariantCulture, $"""
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {Width} {Height}"
            font-family="sans-serif" font-size="13">
            <rect width="{Width}" height="{Height}" fill="#ffffff"/>
            <text x="20" y="28" font-size="17" fill="#222222">{title}</text>

            """);
        for (double value = 0; value <= top + (step / 2); value += step)
        {
            svg.Append($"<line x1=\"{Left}\" y1=\"{y(value):F1}\" x2=\"{Width - Right}\" y2=\"{y(value):F1}\" ");
            svg.Append("stroke=\"#dddddd\"/>\n");
            svg.Append($"<text x=\"{Left - 8}\" y=\"{y(value) + 4:F1}\" text-anchor=\"end\">{value:0.##}</text>\n");
        }

        foreach (double value in xs)
        {
            svg.Append($"<text x=\"{x(value):F1}\" y=\"{Height - Bottom + 20}\" text-anchor=\"middle\">");
            svg.Append($"{value}</text>\n");
        }

        svg.Append($"<text x=\"{Width / 2}\" y=\"{Height - 14}\" text-anchor=\"middle\">{axis}</text>\n");
        for (int i = 0; i < lines.Length; i++)
        {
            Line line = lines[i];
            int key = 20 + (i * 230);
            string points = string.Join(' ', line.Points.Select(point => $"{x(point.X):F1},{y(point.Y):F1}"));
            svg.Append($"<rect x=\"{key}\" y=\"42\" width=\"12\" height=\"12\" fill=\"{line.Colour}\"/>\n");
            svg.Append($"<text x=\"{key + 18}\" y=\"53\" fill=\"#222222\">{line.Name}</text>\n");
            svg.Append($"<polyline points=\"{points}\" fill=\"none\" stroke=\"{line.Colour}\" stroke-width=\"2\"/>\n");
            foreach (Point point in line.Points)
            {
                svg.Append($"<circle cx=\"{x(point.X):F1}\" cy=\"{y(point.Y):F1}\" r=\"3.5\" ");
                svg.Append($"fill=\"{line.Colour}\"/>\n");
            }
        }

        return svg.Append("</svg>\n").ToString();
    }
}

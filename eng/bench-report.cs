// Turns the results of eng/bench.sh into docs/BENCHMARKS.md and its plots: medians, ratios of neighbouring runs.
//   dotnet run --file eng/bench-report.cs -- benchmarks.tsv FOLDER
// A line is one of:
//   load storage place mode load name round w50 p50 p99 cpu-us rss-kib distance-ns     start name us kib
//   check name round iops                                                            info key text
using System.Globalization;
using System.Text;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
string[][] lines = [.. File.ReadLines(args[0]).Select(line => line.Split('\t'))];
Report report = new(lines, args[1]);
report.Write();

internal sealed record Run(
    string Storage, string Place, string Mode, string Load, string Name, int Round,
    double Iops, double P50, double P99, double CpuUs, double RssKiB, double Distance);

/// <summary>One load, with ours and the best of the others.</summary>
internal sealed record Comparison(string Storage, string Load, Run[] Ours, Run[] Theirs, double[] Ratios)
{
    public double Ratio => Report.Median(Ratios);
}

internal sealed class Report(string[][] lines, string folder)
{
    private const string Ours = "ours";
    private const string Marker = "<!-- The rest is recorded by hand; eng/bench.sh keeps it. -->";

    /// <summary>Round trips of a cache line below this are near: only runs at the same distance are compared.</summary>
    private const double NearNs = 200;

    private static readonly (string Place, string Mode, string Title, string File)[] s_variants =
    [
        ("one", "irq", "One processor for both, a driver that sleeps", "bench-one-cpu"),
        ("two", "irq", "Two processors, a driver that sleeps as a guest does", "bench-two-cpus-irq"),
        ("two", "poll", "Two processors, a driver that polls", "bench-two-cpus-poll"),
    ];

    private readonly Run[] _runs = [.. lines.Where(line => line[0] == "load" && line.Length == 13).Select(Parse)];
    private readonly StringBuilder _text = new();

    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length == 0 ? 0
            : sorted.Length % 2 == 1 ? sorted[middle]
            : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    public void Write()
    {
        WriteHead();
        foreach ((string place, string mode, string title, string file) in s_variants)
        {
            Comparison[] all = [.. Compare(place, mode)];
            if (all.Length == 0)
            {
                continue;
            }

            File.WriteAllText(Path.Combine(folder, $"{file}.svg"), RatioPlot.Draw(title, all));
            _text.Append($"\n## {title}\n\n![IOPS relative to qemu-storage-daemon]({file}.svg)\n");
            foreach (IGrouping<string, Comparison> storage in all.GroupBy(one => one.Storage))
            {
                WriteTable(storage.Key, storage);
            }
        }

        WriteStart();
        WriteMemory();
        WriteCheck();
        string path = Path.Combine(folder, "BENCHMARKS.md");
        _text.Append('\n').Append(RecordedElsewhere(path));
        File.WriteAllText(path, _text.ToString());
    }

    /// <summary>What other measurements have recorded: everything from the marker on, which is kept.</summary>
    private static string RecordedElsewhere(string path)
    {
        string old = File.Exists(path) ? File.ReadAllText(path) : string.Empty;
        int marker = old.IndexOf(Marker, StringComparison.Ordinal);
        return marker < 0 ? Marker + "\n" : old[marker..];
    }

    private static Run Parse(string[] line) => new(
        line[1], line[2], line[3], line[4], line[5], int.Parse(line[6]),
        Number(line[7]), Number(line[8]), Number(line[9]), Number(line[10]), Number(line[11]), Number(line[12]));

    private static double Number(string text) => double.TryParse(text, out double value) ? value : 0;

    private IEnumerable<Comparison> Compare(string place, string mode)
    {
        IEnumerable<Run> runs = _runs.Where(run => run.Place == place && run.Mode == mode);
        foreach (var group in runs.GroupBy(run => (run.Storage, run.Load)))
        {
            Run[] ours = [.. group.Where(run => run.Name == Ours)];
            Run[] best = group.Where(run => run.Name != Ours).GroupBy(run => run.Name)
                .OrderByDescending(those => Median(those.Select(run => run.Iops))).FirstOrDefault()?.ToArray() ?? [];
            double[] ratios =
            [
                .. from one in ours
                   let other = Neighbour(one, best)
                   where other is not null
                   select one.Iops / other.Iops,
            ];
            if (ratios.Length > 0)
            {
                yield return new Comparison(group.Key.Storage, group.Key.Load, ours, best, ratios);
            }
        }
    }

    /// <summary>The other back-end's run that is next in time and saw the processors at the same distance.</summary>
    private static Run? Neighbour(Run one, Run[] others) => others
        .Where(other => other.Iops > 0 && Math.Abs(one.Round - other.Round) <= 1)
        .Where(other => one.Distance < NearNs == other.Distance < NearNs)
        .MinBy(other => Math.Abs(one.Round - other.Round));

    private void WriteHead()
    {
        _text.Append("# Benchmarks\n\n`outboard block` side by side with qemu-storage-daemon, on the same file, ");
        _text.Append("under the same load.\n\n");
        foreach (string[] line in lines.Where(line => line[0] == "info"))
        {
            _text.Append($"- {line[1]}: {(line[1] == "command" ? $"`{line[2]}`" : line[2])}\n");
        }

        _text.Append($"""

            How to read the figures:

            - Runs alternate strictly (A B B A ...). A ratio is the median of the ratios of neighbouring runs; the
              smallest and the largest stand beside it. Above 1, outboard is faster.
            - IOPS are those of the median window of 10 ms in a run, so that a moment of another program's does not
              count.
            - qemu-storage-daemon has an I/O thread of its own and runs once for each of its aio modes: the best one
              counts, load by load.
            - On one processor the ratio shows the work done for each I/O, and repeats well. On two processors it shows
              what a guest sees; in a virtual machine waking the other processor dominates there, and only runs that saw
              the two processors at the same distance are compared.
            - CPU is the back-end's processor time for each I/O.

            """);
    }

    private void WriteTable(string storage, IEnumerable<Comparison> comparisons)
    {
        string name = storage switch
        {
            "null" => "No storage (null device): the protocol alone",
            "file" => "A file in the page cache",
            _ => "A file, page cache bypassed (O_DIRECT)",
        };
        _text.Append($"\n### {name}\n\n");
        _text.Append("| load | outboard kIOPS | qsd kIOPS | its aio | ratio | p50 us | p99 us | CPU us | pairs |\n");
        _text.Append("|---|---:|---:|---|---:|---:|---:|---:|---:|\n");
        foreach (Comparison one in comparisons)
        {
            string aio = one.Theirs[0].Name.Replace("qsd_", string.Empty).Replace("qsd", "-");
            _text.Append($"| {one.Load} | {Kilo(one.Ours)} | {Kilo(one.Theirs)} | {aio} ");
            _text.Append($"| **{one.Ratio:F2}** ({one.Ratios.Min():F2} to {one.Ratios.Max():F2}) ");
            _text.Append($"| {Both(one, run => run.P50)} | {Both(one, run => run.P99)} ");
            _text.Append($"| {Both(one, run => run.CpuUs)} | {one.Ratios.Length} |\n");
        }
    }

    private static string Kilo(Run[] runs) => $"{Median(runs.Select(run => run.Iops)) / 1000:N1}";

    private static string Both(Comparison one, Func<Run, double> value) =>
        $"{Median(one.Ours.Select(value)):N2} : {Median(one.Theirs.Select(value)):N2}";

    private void WriteStart()
    {
        var starts = lines.Where(line => line[0] == "start").GroupBy(line => line[1]).ToArray();
        if (starts.Length == 0)
        {
            return;
        }

        _text.Append("\n## Start-up\n\nFrom starting the program until its socket listens.\n\n");
        _text.Append("| back-end | median ms | fastest ms | resident MiB when idle |\n|---|---:|---:|---:|\n");
        foreach (var start in starts)
        {
            double[] ms = [.. start.Select(line => Number(line[2]) / 1000)];
            double mib = Median(start.Select(line => Number(line[3]))) / 1024;
            _text.Append($"| {start.Key} | {Median(ms):F1} | {ms.Min():F1} | {mib:F1} |\n");
        }
    }

    private void WriteMemory()
    {
        if (_runs.Length == 0)
        {
            return;
        }

        _text.Append("\n## Memory under load\n\n| back-end | storage | most MiB resident |\n|---|---|---:|\n");
        foreach (var group in _runs.GroupBy(run => (run.Storage, run.Name)))
        {
            string name = group.Key.Name == Ours ? "outboard" : group.Key.Name.Replace("qsd_", "qsd, aio=");
            _text.Append($"| {name} | {group.Key.Storage} | {group.Max(run => run.RssKiB) / 1024:F1} |\n");
        }
    }

    private void WriteCheck()
    {
        var checks = lines.Where(line => line[0] == "check").GroupBy(line => line[1]).ToArray();
        if (checks.Length == 0)
        {
            return;
        }

        _text.Append("\n## Cross-check with another load generator\n\n");
        _text.Append("`qemu-img bench` on libblkio: 4 KiB sequential reads, depth 32, a file in the page cache, ");
        _text.Append("two processors.\n\n");
        _text.Append("| back-end | median kIOPS | least | most |\n|---|---:|---:|---:|\n");
        foreach (var check in checks)
        {
            double[] iops = [.. check.Select(line => Number(line[3]) / 1000)];
            string name = check.Key == Ours ? "outboard" : check.Key.Replace("qsd_", "qsd, aio=");
            _text.Append($"| {name} | {Median(iops):N1} | {iops.Min():N1} | {iops.Max():N1} |\n");
        }
    }
}

/// <summary>Horizontal bars of ratios, on a logarithmic axis: twice as fast and half as fast look alike.</summary>
internal static class RatioPlot
{
    private const int Width = 900;
    private const int LabelWidth = 330;
    private const int RightMargin = 70;
    private const int RowHeight = 24;
    private const int Top = 64;
    private const int Bottom = 56;

    public static string Draw(string title, Comparison[] all)
    {
        double most = Math.Max(2, all.Max(one => Math.Max(one.Ratio, 1 / one.Ratio)));
        int octaves = (int)Math.Ceiling(Math.Log2(most));
        int least = all.Any(one => one.Ratio < 1) ? -(int)Math.Ceiling(Math.Log2(1 / all.Min(one => one.Ratio))) : 0;
        double scale = (Width - LabelWidth - RightMargin) / (double)(octaves - least);
        double x(double ratio) => LabelWidth + ((Math.Log2(ratio) - least) * scale);
        int height = Top + (all.Length * RowHeight) + Bottom;
        StringBuilder svg = new();
        svg.Append($"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {height}\" ");
        svg.Append("font-family=\"sans-serif\" font-size=\"13\">\n");
        svg.Append($"<rect width=\"{Width}\" height=\"{height}\" fill=\"#ffffff\"/>\n");
        svg.Append($"<text x=\"20\" y=\"28\" font-size=\"17\" fill=\"#222222\">{title}</text>\n");
        int end = height - Bottom + 6;
        for (int octave = least; octave <= octaves; octave++)
        {
            double at = x(Math.Pow(2, octave));
            string colour = octave == 0 ? "#444444" : "#dddddd";
            svg.Append($"<line x1=\"{at:F1}\" y1=\"{Top - 10}\" x2=\"{at:F1}\" y2=\"{end}\" stroke=\"{colour}\"/>\n");
            svg.Append($"<text x=\"{at:F1}\" y=\"{end + 16}\" text-anchor=\"middle\" fill=\"#444444\">");
            svg.Append($"{Math.Pow(2, octave):0.###}</text>\n");
        }

        double centre = LabelWidth + ((Width - LabelWidth - RightMargin) / 2.0);
        svg.Append($"<text x=\"{centre:F1}\" y=\"{end + 36}\" text-anchor=\"middle\" fill=\"#222222\">");
        svg.Append("IOPS of outboard / IOPS of qemu-storage-daemon (logarithmic; right of 1 is faster)</text>\n");
        for (int i = 0; i < all.Length; i++)
        {
            DrawBar(svg, all[i], Top + (i * RowHeight), x);
        }

        return svg.Append("</svg>\n").ToString();
    }

    private static void DrawBar(StringBuilder svg, Comparison one, int y, Func<double, double> x)
    {
        double from = Math.Min(x(1), x(one.Ratio));
        double length = Math.Abs(x(one.Ratio) - x(1));
        string colour = one.Ratio >= 1 ? "#2a7f62" : "#c0562b";
        double least = x(one.Ratios.Min());
        double most = x(one.Ratios.Max());
        int middle = y + (RowHeight / 2) - 2;
        least = Math.Max(least, LabelWidth);
        most = Math.Min(most, Width - 4);
        svg.Append($"<text x=\"{LabelWidth - 10}\" y=\"{middle + 5}\" text-anchor=\"end\" fill=\"#222222\">");
        svg.Append($"{one.Storage}: {one.Load}</text>\n");
        svg.Append($"<rect x=\"{from:F1}\" y=\"{y + 2}\" width=\"{length:F1}\" height=\"{RowHeight - 8}\" ");
        svg.Append($"fill=\"{colour}\"/>\n<line x1=\"{least:F1}\" y1=\"{middle}\" x2=\"{most:F1}\" y2=\"{middle}\" ");
        svg.Append("stroke=\"#111111\"/>\n");
        double label = Math.Max(Math.Min(most, Width - RightMargin), from + length) + 6;
        svg.Append($"<text x=\"{label:F1}\" y=\"{middle + 5}\" fill=\"#222222\">{one.Ratio:F2}</text>\n");
    }
}

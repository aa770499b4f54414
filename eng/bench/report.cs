// Turns the results of eng/bench.sh into docs/BENCHMARKS.md and its plots: medians, ratios of neighbouring runs.
//   dotnet run --file eng/bench/report.cs -- RESULTS-FOLDER FOLDER
// The results have a file for each part of the run. A line of them is one of:
//   load storage place mode load name round w50 p50 p99 cpu-us rss-kib distance-ns     start name us kib
//   form name description bytes      net size ring name round packets-a-second
//   check name round iops            info key text
using System.Globalization;
using System.Text;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
Dictionary<string, string[][]> parts = Report.Parts
    .Select(part => (part, Path: Path.Combine(args[0], $"{part}.tsv")))
    .Where(one => File.Exists(one.Path))
    .ToDictionary(one => one.part, one => File.ReadLines(one.Path).Select(line => line.Split('\t')).ToArray());
new Report(parts, args[1]).Write();

internal sealed record Run(
    string Storage, string Place, string Mode, string Load, string Name, int Round,
    double Iops, double P50, double P99, double CpuUs, double RssKiB, double Distance);

/// <summary>One load, on ours and on the best variant of one peer.</summary>
internal sealed record Comparison(string Storage, string Load, Run[] Ours, Run[] Theirs, double[] Ratios)
{
    public double Ratio => Report.Median(Ratios);
}

/// <summary>A peer: what the names of its variants begin with, and what it is called.</summary>
internal sealed record Peer(string Prefix, string Name, string Colour);

internal sealed class Report(Dictionary<string, string[][]> parts, string folder)
{
    public static readonly string[] Parts = ["null", "file", "direct", "queues", "rings", "start", "check", "net", "appliance"];

    public static readonly Peer[] Peers =
        [new("qsd", "qemu-storage-daemon", "#2a7f62"), new("rust", "Rust (vhost-user-backend)", "#4a6fa5")];

    private const string Ours = "ours";
    private const string Packed = "ours_packed";
    private const string Marker = "<!-- The rest is recorded by hand; eng/bench.sh keeps it. -->";

    /// <summary>Round trips of a cache line below this are near: only runs at the same distance are compared.</summary>
    private const double NearNs = 200;

    private static readonly (string Place, string Mode, string Title, string File)[] s_variants =
    [
        ("one", "irq", "One processor for both, a driver that sleeps", "bench-one-cpu"),
        ("two", "irq", "Two processors, a driver that sleeps as a guest does", "bench-two-cpus-irq"),
        ("two", "poll", "Two processors, a driver that polls", "bench-two-cpus-poll"),
    ];

    private readonly Run[] _runs =
    [
        .. parts.Values.SelectMany(lines => lines).Where(line => line[0] == "load" && line.Length == 13).Select(Parse),
    ];

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
            WriteVariant(place, mode, title, file);
        }

        WriteQueues();
        WriteRings();
        WriteNet();
        WriteForms();
        WriteAppliance();
        WriteMemory();
        WriteCheck();
        WriteRuns();
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

    private IEnumerable<string[]> Lines(string part, string kind) =>
        parts.GetValueOrDefault(part, []).Where(line => line[0] == kind);

    private IEnumerable<IGrouping<(string Storage, string Load), Run>> Loads(
        string place, string mode, params string[] storages) =>
        _runs.Where(run => run.Place == place && run.Mode == mode && storages.Contains(run.Storage))
            .GroupBy(run => (run.Storage, run.Load));

    /// <summary>Ours against the best of those whose names begin with a prefix.</summary>
    private static Comparison? Compare(IGrouping<(string Storage, string Load), Run> runs, string prefix)
    {
        Run[] ours = [.. runs.Where(run => run.Name == Ours)];
        Run[] best = runs.Where(run => run.Name.StartsWith(prefix, StringComparison.Ordinal))
            .GroupBy(run => run.Name)
            .OrderByDescending(those => Median(those.Select(run => run.Iops))).FirstOrDefault()?.ToArray() ?? [];
        double[] ratios =
        [
            .. from one in ours
               let other = Neighbour(one, best)
               where other is not null
               select one.Iops / other.Iops,
        ];
        return ratios.Length == 0 ? null : new Comparison(runs.Key.Storage, runs.Key.Load, ours, best, ratios);
    }

    /// <summary>The other back-end's run that is next in time and saw the processors at the same distance.</summary>
    private static Run? Neighbour(Run one, Run[] others) => others
        .Where(other => other.Iops > 0 && Math.Abs(one.Round - other.Round) <= 1)
        .Where(other => one.Distance < NearNs == other.Distance < NearNs)
        .MinBy(other => Math.Abs(one.Round - other.Round));

    private void WriteHead() => _text.Append("""
        # Benchmarks

        `outboard` side by side with its peers, on the same file, under the same load, by `eng/bench.sh`.

        How to read the figures:

        - Runs alternate strictly (A B C C B A ...). A ratio is the median of the ratios of neighbouring runs; the
          smallest and the largest stand beside it. Above 1, outboard is faster.
        - IOPS are those of the median window of 10 ms in a run, so that a moment of another program's does not
          count.
        - qsd is qemu-storage-daemon with an I/O thread of its own, once for each of its aio modes. Rust is
          `tests/Outboard.Benchmarks/Peers/rust-blk`, a small program on rust-vmm's vhost-user-backend, once sleeping
          and once polling for 50 us as ours may, with plain calls or io_uring. The best variant of each counts, load
          by load.
        - On one processor the ratio shows the work done for each I/O, and repeats well. On two processors it shows
          what a guest sees; in a virtual machine waking the other processor dominates there, and only runs that saw
          the two processors at the same distance are compared.
        - Three figures, as in 1 : 2 : 3, are ours, qsd's and Rust's. CPU is the back-end's processor time for each I/O.

        """);

    private void WriteVariant(string place, string mode, string title, string file)
    {
        var loads = Loads(place, mode, "null", "file", "direct").ToArray();
        if (loads.Length == 0)
        {
            return;
        }

        (Peer Peer, Comparison[] All)[] bars =
        [
            .. Peers.Select(peer => (
                peer, loads.Select(load => Compare(load, peer.Prefix)).OfType<Comparison>().ToArray())),
        ];
        File.WriteAllText(Path.Combine(folder, $"{file}.svg"), RatioPlot.Draw(title, bars));
        _text.Append($"\n## {title}\n\n![IOPS relative to the peers]({file}.svg)\n");
        foreach (var storage in loads.GroupBy(load => load.Key.Storage))
        {
            string name = storage.Key switch
            {
                "null" => "No storage (null device): the protocol alone",
                "file" => "A file in the page cache",
                _ => "A file, page cache bypassed (O_DIRECT)",
            };
            _text.Append($"\n### {name}\n\n");
            WriteTable(storage);
        }
    }

    private void WriteTable(IEnumerable<IGrouping<(string Storage, string Load), Run>> loads)
    {
        _text.Append("| load | outboard kIOPS | qsd kIOPS | ratio | Rust kIOPS | ratio | p50 us | p99 us | CPU us |\n");
        _text.Append("|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        foreach (var load in loads)
        {
            Comparison?[] all = [.. Peers.Select(peer => Compare(load, peer.Prefix))];
            Run[] ours = [.. load.Where(run => run.Name == Ours)];
            _text.Append($"| {load.Key.Load} | {Kilo(ours)} ");
            for (int i = 0; i < all.Length; i++)
            {
                _text.Append(all[i] is { } one
                    ? $"| {Kilo(one.Theirs)}{Variant(one.Theirs[0].Name, Peers[i].Prefix)} | {Ratio(one.Ratios)} "
                    : "| - | - ");
            }

            _text.Append($"| {Side(ours, all, run => run.P50)} | {Side(ours, all, run => run.P99)} ");
            _text.Append($"| {Side(ours, all, run => run.CpuUs)} |\n");
        }
    }

    private static string Variant(string name, string prefix) =>
        name == prefix ? string.Empty : $" ({name[(prefix.Length + 1)..].Replace("_polling", ", polling")})";

    private static string Ratio(double[] ratios) => $"**{Median(ratios):F2}** ({ratios.Min():F2} to {ratios.Max():F2})";

    private static string Kilo(IEnumerable<Run> runs) => $"{Median(runs.Select(run => run.Iops)) / 1000:N1}";

    private static string Side(Run[] ours, Comparison?[] all, Func<Run, double> value) => string.Join(
        " : ",
        all.Select(one => one is null ? "-" : $"{Median(one.Theirs.Select(value)):N2}")
            .Prepend($"{Median(ours.Select(value)):N2}"));

    private void WriteQueues()
    {
        foreach ((string mode, string title) in new[] { ("irq", "sleep"), ("poll", "poll") })
        {
            var loads = Loads("two", mode, "queues").ToArray();
            if (loads.Length > 0)
            {
                _text.Append($"\n## Several queues, drivers that {title}\n\nNull devices; each queue has a thread of ");
                _text.Append("the load's, and all threads share two processors.\n\n");
                WriteTable(loads);
            }
        }
    }

    private void WriteRings()
    {
        if (!_runs.Any(run => run.Storage == "rings"))
        {
            return;
        }

        _text.Append("\n## Packed ring against split ring\n\nOurs against ours, a null device, two processors.\n\n");
        _text.Append("| driver | load | packed kIOPS | split kIOPS | packed / split | CPU us |\n");
        _text.Append("|---|---|---:|---:|---:|---:|\n");
        foreach (string mode in new[] { "irq", "poll" })
        {
            foreach (var load in Loads("two", mode, "rings"))
            {
                Comparison? one = Compare(load, Packed);
                if (one is not null)
                {
                    _text.Append($"| {(mode == "irq" ? "sleeps" : "polls")} | {load.Key.Load} | {Kilo(one.Theirs)} ");
                    _text.Append($"| {Kilo(one.Ours)} | {Ratio([.. one.Ratios.Select(ratio => 1 / ratio)])} ");
                    _text.Append($"| {Median(one.Theirs.Select(run => run.CpuUs)):N2} : ");
                    _text.Append($"{Median(one.Ours.Select(run => run.CpuUs)):N2} |\n");
                }
            }
        }
    }

    private void WriteNet()
    {
        var all = Lines("net", "net").GroupBy(line => (Size: line[1], Ring: line[2])).ToArray();
        if (all.Length == 0)
        {
            return;
        }

        _text.Append("""

            ## Packets

            DPDK's testpmd (net_virtio_user, txonly) sends as fast as it can, on one processor; the back-end has the
            other: `outboard net --null`, which checks, translates and drops, and testpmd's net_vhost (rxonly), which
            copies each packet into a buffer of its own.

            | packets | ring | outboard Mpps | DPDK Mpps | ratio |
            |---|---|---:|---:|---:|

            """);
        foreach (var one in all)
        {
            double rate(string name, string round) =>
                Number(one.FirstOrDefault(line => line[3] == name && line[4] == round)?[5] ?? "0") / 1e6;
            string[] rounds = [.. one.Select(line => line[4]).Distinct()];
            double[] ratios =
            [
                .. rounds.Where(round => rate("dpdk", round) > 0 && rate(Ours, round) > 0)
                    .Select(round => rate(Ours, round) / rate("dpdk", round)),
            ];
            if (ratios.Length > 0)
            {
                _text.Append($"| {one.Key.Size} bytes | {one.Key.Ring} ");
                _text.Append($"| {Median(rounds.Select(round => rate(Ours, round))):F1} ");
                _text.Append($"| {Median(rounds.Select(round => rate("dpdk", round))):F1} | {Ratio(ratios)} |\n");
            }
        }
    }

    private void WriteForms()
    {
        var starts = Lines("start", "start").GroupBy(line => line[1]).ToDictionary(group => group.Key);
        if (starts.Count == 0)
        {
            return;
        }

        _text.Append("""

            ## The shipped form

            From starting the program until its socket listens, with a disk image. kIOPS: a null device at depth 32, two
            processors, in the first tenth of a second of a new process, in the next one, and after two seconds.

            | form | median ms | fastest ms | idle MiB | size MiB | kIOPS 0 to 0.1 s | 0.1 to 0.2 s | after 2 s |
            |---|---:|---:|---:|---:|---:|---:|---:|

            """);
        Dictionary<string, string[]> forms = Lines("start", "form").ToDictionary(line => line[1]);
        foreach ((string name, IGrouping<string, string[]> start) in starts)
        {
            double[] ms = [.. start.Select(line => Number(line[2]) / 1000)];
            double mib = Median(start.Select(line => Number(line[3]))) / 1024;
            string[]? form = forms.GetValueOrDefault(name);
            _text.Append($"| {form?[2] ?? name} | {Median(ms):F1} | {ms.Min():F1} | {mib:F1} ");
            _text.Append(form is null ? "| - " : $"| {Number(form[3]) / (1 << 20):F1} ");
            foreach (string moment in new[] { "first", "second", "warm" })
            {
                Run[] runs = [.. _runs.Where(run => run.Storage == $"form-{name}" && run.Load == moment)];
                _text.Append(runs.Length == 0 ? "| - " : $"| {Kilo(runs)} ");
            }

            _text.Append("|\n");
        }
    }

    private void WriteAppliance()
    {
        var loads = _runs.Where(run => run.Storage.StartsWith("appliance")).GroupBy(run => (run.Storage, run.Load));
        string title = "\n## Through an appliance\n\n| disk | load | back-end | kIOPS | p50 us | p99 us |\n"
            + "|---|---|---|---:|---:|---:|\n";
        foreach (var load in loads)
        {
            foreach (var runs in load.GroupBy(run => run.Name))
            {
                _text.Append(title).Append($"| {load.Key.Storage["appliance-".Length..]} | {load.Key.Load} ");
                _text.Append($"| {runs.Key} | {Median(runs.Select(run => run.Iops)) / 1000:N1} ");
                _text.Append($"| {Median(runs.Select(run => run.P50)):N1} | {Median(runs.Select(run => run.P99)):N1} |\n");
                title = string.Empty;
            }
        }
    }

    private void WriteMemory()
    {
        var groups = _runs.Where(run => run.Storage is "null" or "file" or "direct")
            .GroupBy(run => (run.Storage, run.Name)).ToArray();
        if (groups.Length == 0)
        {
            return;
        }

        _text.Append("\n## Memory under load\n\n| back-end | storage | most MiB resident |\n|---|---|---:|\n");
        foreach (var group in groups)
        {
            _text.Append($"| {Called(group.Key.Name)} | {group.Key.Storage} ");
            _text.Append($"| {group.Max(run => run.RssKiB) / 1024:F1} |\n");
        }
    }

    private static string Called(string name) => name == Ours ? "outboard"
        : name.Replace("qsd_", "qsd, aio=").Replace("rust_", "Rust, ").Replace("rust", "Rust").Replace("_", ", ")
            .Replace("io, uring", "io_uring");

    private void WriteCheck()
    {
        var checks = Lines("check", "check").GroupBy(line => line[1]).ToArray();
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
            _text.Append($"| {Called(check.Key)} | {Median(iops):N1} | {iops.Min():N1} | {iops.Max():N1} |\n");
        }
    }

    /// <summary>Where and when each part was measured; parts measured alike share a line.</summary>
    private void WriteRuns()
    {
        _text.Append("\n## Where this was measured\n\n| parts | what | |\n|---|---|---|\n");
        var facts = from part in parts
                    from line in part.Value
                    where line[0] == "info"
                    group part.Key by (Key: line[1], Text: line[2]);
        foreach (var fact in facts.OrderBy(fact => fact.Key.Key, StringComparer.Ordinal))
        {
            string text = fact.Key.Key == "command" ? $"`{fact.Key.Text}`" : fact.Key.Text;
            _text.Append($"| {(fact.Count() == parts.Count ? "all" : string.Join(", ", fact))} ");
            _text.Append($"| {fact.Key.Key} | {text} |\n");
        }
    }
}

/// <summary>Horizontal bars of ratios, on a logarithmic axis: twice as fast and half as fast look alike.</summary>
internal static class RatioPlot
{
    private const int Width = 900;
    private const int LabelWidth = 330;
    private const int RightMargin = 70;
    private const int BarHeight = 13;
    private const int RowGap = 9;
    private const int Top = 84;
    private const int Bottom = 56;

    public static string Draw(string title, (Peer Peer, Comparison[] All)[] peers)
    {
        (string Storage, string Load)[] rows =
            [.. peers.SelectMany(peer => peer.All).Select(one => (one.Storage, one.Load)).Distinct()];
        double[] ratios = [.. peers.SelectMany(peer => peer.All).Select(one => one.Ratio)];
        int octaves = (int)Math.Ceiling(Math.Log2(Math.Max(2, ratios.Max())));
        int least = Math.Min(0, (int)Math.Floor(Math.Log2(ratios.Min())));
        double scale = (Width - LabelWidth - RightMargin) / (double)(octaves - least);
        double x(double ratio) => LabelWidth + ((Math.Log2(ratio) - least) * scale);
        int rowHeight = (peers.Length * BarHeight) + RowGap;
        int height = Top + (rows.Length * rowHeight) + Bottom;
        StringBuilder svg = new();
        svg.Append($"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {height}\" ");
        svg.Append("font-family=\"sans-serif\" font-size=\"13\">\n");
        svg.Append($"<rect width=\"{Width}\" height=\"{height}\" fill=\"#ffffff\"/>\n");
        svg.Append($"<text x=\"20\" y=\"28\" font-size=\"17\" fill=\"#222222\">{title}</text>\n");
        for (int i = 0; i < peers.Length; i++)
        {
            int left = 20 + (i * 260);
            svg.Append($"<rect x=\"{left}\" y=\"42\" width=\"12\" height=\"12\" fill=\"{peers[i].Peer.Colour}\"/>\n");
            svg.Append($"<text x=\"{left + 18}\" y=\"53\" fill=\"#222222\">against {peers[i].Peer.Name}</text>\n");
        }

        DrawAxis(svg, least, octaves, height - Bottom + 6, x);
        for (int row = 0; row < rows.Length; row++)
        {
            int y = Top + (row * rowHeight);
            svg.Append($"<text x=\"{LabelWidth - 10}\" y=\"{y + (rowHeight / 2) + 1}\" text-anchor=\"end\" ");
            svg.Append($"fill=\"#222222\">{rows[row].Storage}: {rows[row].Load}</text>\n");
            for (int i = 0; i < peers.Length; i++)
            {
                Comparison? one = peers[i].All
                    .FirstOrDefault(one => one.Storage == rows[row].Storage && one.Load == rows[row].Load);
                if (one is not null)
                {
                    DrawBar(svg, one, peers[i].Peer.Colour, y + (i * BarHeight), x);
                }
            }
        }

        return svg.Append("</svg>\n").ToString();
    }

    private static void DrawAxis(StringBuilder svg, int least, int octaves, int end, Func<double, double> x)
    {
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
        svg.Append("IOPS of outboard / IOPS of the peer (logarithmic; right of 1 is faster)</text>\n");
    }

    private static void DrawBar(StringBuilder svg, Comparison one, string colour, int y, Func<double, double> x)
    {
        double from = Math.Min(x(1), x(one.Ratio));
        double length = Math.Abs(x(one.Ratio) - x(1));
        colour = one.Ratio >= 1 ? colour : "#c0562b";
        double least = Math.Max(x(one.Ratios.Min()), LabelWidth);
        double most = Math.Min(x(one.Ratios.Max()), Width - 4);
        int middle = y + (BarHeight / 2);
        svg.Append($"<rect x=\"{from:F1}\" y=\"{y + 1}\" width=\"{length:F1}\" height=\"{BarHeight - 2}\" ");
        svg.Append($"fill=\"{colour}\"/>\n<line x1=\"{least:F1}\" y1=\"{middle}\" x2=\"{most:F1}\" y2=\"{middle}\" ");
        svg.Append("stroke=\"#111111\"/>\n");
        double label = Math.Max(Math.Min(most, Width - RightMargin), from + length) + 6;
        svg.Append($"<text x=\"{label:F1}\" y=\"{middle + 5}\" font-size=\"11\" fill=\"#222222\">{one.Ratio:F2}</text>\n");
    }
}

// "outboard bench kill": kill -9 of "outboard block" again and again under a verified load.
// Exit status: 0 nothing was lost, doubled or wrong; 1 otherwise.
using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Outboard.Cli.Text;

namespace Outboard.Cli.Bench;

internal static class BenchKillCommand
{
    private const int MostKills = 1_000_000;
    private const int MostQueues = 16;
    private const int MostDepth = 1024;
    private const int LongestLifeMs = 60_000;

    private static readonly ValueOption<int?> s_kills = ValueOption.Number(
        "--kills", "N", "Times that the back-end is killed. [default: 20]", 1, MostKills);

    private static readonly ValueOption<string> s_folder = ValueOption.Text(
        "--folder", "PATH", "Where the disk image is made, and removed. [default: the temporary folder]");

    private static readonly SwitchOption s_packed = new("--packed", "Use packed virtqueues.");

    private static readonly SwitchOption s_indirect = new("--indirect", "Use indirect descriptors.");

    private static readonly SwitchOption s_noInflight = new(
        "--no-inflight", "Do without in-flight tracking: requests are submitted again by the front-end.");

    private static readonly ValueOption<int?> s_queues = ValueOption.Number(
        "--queues", "N", "Virtqueues, with a thread each. [default: 1]", 1, MostQueues);

    private static readonly ValueOption<int?> s_depth = ValueOption.Number(
        "--queue-depth", "N", "Requests in flight on each queue. [default: 32]", 1, MostDepth);

    private static readonly ValueOption<int?> s_life = ValueOption.Number(
        "--life-ms", "N", "Longest time between a reconnection and the next kill. [default: 200]", 0, LongestLifeMs);

    private static readonly ValueOption<int?> s_seed = ValueOption.Number(
        "--seed", "N", "Where the random numbers begin. [default: 1]", 0, int.MaxValue);

    private static readonly ValueOption<string> s_engine = ValueOption.Choice(
        "--io", "The back-end's --io. [default: auto]", "auto", "io_uring", "threads");

    private static readonly SwitchOption s_direct = new("--direct", "The back-end's --direct (O_DIRECT).");

    private static readonly ValueOption<long?> s_range = ValueOption.Size(
        "--size", "Bytes of the disk. [default: 16M]");

    private static readonly SwitchOption s_json = new("--json", "Print one JSON object.");

    public static Command Create()
    {
        Command command = new(
            "kill", "Kill 'outboard block' again and again under a verified load; nothing may be lost or doubled.");
        Option[] all =
        [
            s_kills, s_folder, s_packed, s_indirect, s_noInflight, s_queues, s_depth, s_life, s_seed, s_engine,
            s_direct, s_range, s_json,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }

        command.SetAction(RunAsync);
        return command;
    }

    private static async Task<int> RunAsync(ParseResult arguments, CancellationToken cancellation)
    {
        DirectoryInfo folder = s_folder.Read(arguments) is { } parent
            ? Directory.CreateDirectory(Path.Combine(parent, $"outboard-{Environment.ProcessId}"))
            : Directory.CreateTempSubdirectory("outboard-");
        try
        {
            KillRun run = new(Settings(arguments, folder.FullName), Console.IsErrorRedirected ? null : ShowProgress);
            await using (run.ConfigureAwait(false))
            {
                KillResult result = await run.RunAsync(cancellation).ConfigureAwait(false);
                foreach (string failure in result.Failures)
                {
                    ErrorLine.Write(failure);
                }

                Console.Out.Write(s_json.Read(arguments) ? Json(result) + "\n" : Text(result));
                return result.IsGood ? 0 : 1;
            }
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static KillSettings Settings(ParseResult arguments, string folder)
    {
        List<string> backend = [];
        if (s_engine.Read(arguments) is { } engine)
        {
            backend.Add($"--io={engine}");
        }

        if (s_direct.Read(arguments))
        {
            backend.Add("--direct");
        }

        return new KillSettings
        {
            Folder = folder,
            Kills = s_kills.Read(arguments) ?? 20,
            BackendArguments = backend,
            LongestLife = TimeSpan.FromMilliseconds(s_life.Read(arguments) ?? 200),
            Seed = s_seed.Read(arguments) ?? 1,
            Load = new LoadSettings
            {
                SocketPath = Path.Combine(folder, "kill.sock"),
                QueueDepth = s_depth.Read(arguments) ?? 32,
                QueueCount = s_queues.Read(arguments) ?? 1,
                ReadPercent = 50,
                RangeBytes = s_range.Read(arguments) ?? 16 << 20,
                UsePacked = s_packed.Read(arguments),
                UseIndirect = s_indirect.Read(arguments),
                TrackInflight = !s_noInflight.Read(arguments),
                Verify = true,
            },
        };
    }

    private static void ShowProgress(KillResult result) => Console.Error.Write(string.Create(
        CultureInfo.InvariantCulture,
        $"\r\e[K{result.Kills,6} of {result.Settings.Kills} kills"));

    private static string Text(KillResult result) => string.Create(
        CultureInfo.InvariantCulture,
        $"""
        {result.Kills} kills in {result.Elapsed.TotalSeconds:F0} s
        {result.KillsInFlight} of them with requests in flight, {result.InFlightAtKills:N0} in all
        {result.Completed:N0} requests completed, {result.Written:N0} blocks written, {result.Compared:N0} compared
        lost {result.Lost}, doubled {result.Doubled}, wrong {result.Failures.Count}

        """);

    private static string Json(KillResult result)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, new JsonWriterOptions { Indented = true }))
        {
            LoadSettings load = result.Settings.Load;
            json.WriteStartObject();
            json.WriteNumber("kills", result.Kills);
            json.WriteBoolean("packed", load.UsePacked);
            json.WriteBoolean("indirect", load.UseIndirect);
            json.WriteBoolean("inflight", load.TrackInflight);
            json.WriteNumber("queues", load.QueueCount);
            json.WriteNumber("queueDepth", load.QueueDepth);
            json.WriteString("backend", string.Join(' ', result.Settings.BackendArguments));
            json.WriteNumber("seconds", Math.Round(result.Elapsed.TotalSeconds, 1));
            json.WriteNumber("killsWithRequestsInFlight", result.KillsInFlight);
            json.WriteNumber("requestsInFlightAtKills", result.InFlightAtKills);
            json.WriteNumber("failedStarts", result.FailedStarts);
            json.WriteNumber("completed", result.Completed);
            json.WriteNumber("writtenBlocks", result.Written);
            json.WriteNumber("comparedBlocks", result.Compared);
            json.WriteNumber("lost", result.Lost);
            json.WriteNumber("doubled", result.Doubled);
            json.WriteNumber("wrong", result.Failures.Count);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(stream.ToArray());
    }
}

// "outboard inspect" and "outboard trace" as processes, with back-ends of ours.
using System.Text.Json;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class InspectAndTraceTests : IDisposable
{
    private const string Offered = """
        socket               SOCKET
        device type          block (guessed from its features)
        """;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task What_a_back_end_offers_is_printed()
    {
        await using OutboardProcess backend = await ServeAsync();
        Outcome outcome = await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["s"]}");
        Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
        Assert.StartsWith(
            Offered.Replace("SOCKET", _folder["s"], StringComparison.Ordinal), outcome.Output,
            StringComparison.Ordinal);
        string[] lines = outcome.Output.Split('\n');
        Assert.Contains("queues               2", lines);
        Assert.Contains("memory slots         509", lines);
        Assert.Contains("  capacity           2048", lines);
        Assert.Contains("  num_queues         2", lines);
        Assert.Contains(lines, line => line.Contains("VERSION_1", StringComparison.Ordinal));
        Assert.All(lines, line => Assert.Equal(line.TrimEnd(), line));

        // It leaves nothing: the next one is served.
        Outcome again = await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["s"]}", "--json");
        JsonElement offer = JsonDocument.Parse(again.Output).RootElement;
        Assert.Equal("block", offer.GetProperty("type").GetString());
        Assert.True(offer.GetProperty("type_guessed").GetBoolean());
        Assert.Equal(2, offer.GetProperty("queues").GetInt32());
        Assert.Equal(2048, offer.GetProperty("config").GetProperty("capacity").GetInt32());
        Assert.Contains("CONFIG", Words(offer.GetProperty("protocol_features").GetProperty("names")));
        Assert.Contains("FLUSH", Words(offer.GetProperty("features").GetProperty("device")));
    }

    [Theory]
    [InlineData("block --null-size=1M")]
    [InlineData("net --null")]
    [InlineData("rng")]
    public async Task In_band_notifications_are_offered_when_asked_for(string backEnd)
    {
        foreach (bool asks in (bool[])[false, true])
        {
            string socket = _folder[$"s{asks}"];
            string[] more = asks ? ["--inband-notifications"] : [];
            await using OutboardProcess backend = OutboardProcess.Start(
                [.. backEnd.Split(' '), $"--socket-path={socket}", .. more]);
            await backend.ListensAsync(socket);
            Outcome outcome = await OutboardProcess.RunAsync("inspect", $"--socket-path={socket}");
            Assert.Equal(asks, outcome.Output.Contains("INBAND_NOTIFICATIONS", StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task Nobody_to_inspect_is_told_in_one_line()
    {
        string path = _folder["none"];
        (await OutboardProcess.RunAsync("inspect", $"--socket-path={path}")).AssertFailed(1, path);
        (await OutboardProcess.RunAsync("inspect", $"--socket-path={path}", "--type=toaster"))
            .AssertFailed(2, "--type=toaster", "vsock");
        (await OutboardProcess.RunAsync("trace", $"--listen={path}")).AssertFailed(2, "--connect");
    }

    [Fact]
    public async Task A_trace_shows_every_message_until_the_signal()
    {
        await using OutboardProcess backend = await ServeAsync();
        await using OutboardProcess trace = OutboardProcess.Start(
            "trace", $"--listen={_folder["t"]}", $"--connect={_folder["s"]}", "--type=block");
        await trace.ListensAsync(_folder["t"]);
        Outcome inspected = await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["t"]}");
        Assert.Equal(0, inspected.ExitCode);
        trace.Signal("TERM");
        Outcome outcome = await trace.EndAsync();
        Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
        Assert.Contains(" F>B  #1 GET_FEATURES\n", outcome.Output, StringComparison.Ordinal);
        Assert.Matches(@" B>F  #2 GET_FEATURES reply to #1 after \d+ us: features=0x\w+\(.*VERSION_1", outcome.Output);
        Assert.Matches(@"GET_CONFIG offset=0 size=\d+", outcome.Output);
        Assert.Matches(@"GET_CONFIG reply .* config=\[\{capacity=2048 .*num_queues=2", outcome.Output);
        Assert.DoesNotContain("!!", outcome.Output, StringComparison.Ordinal);
        Assert.False(File.Exists(_folder["t"]));
    }

    [Fact]
    public async Task A_trace_in_json_has_an_object_on_each_line_and_ends_with_its_connection()
    {
        await using OutboardProcess backend = await ServeAsync();
        await using OutboardProcess trace = OutboardProcess.Start(
            "trace", $"--listen={_folder["t"]}", $"--connect={_folder["s"]}", "--json", "--once");
        await trace.WaitForFileAsync(_folder["t"]);
        await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["t"]}");
        Outcome outcome = await trace.EndAsync();
        Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
        JsonElement[] lines = [.. outcome.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonDocument.Parse(line).RootElement)];
        Assert.Equal("opened", lines[0].GetProperty("event").GetString());
        JsonElement reply = lines[2];
        Assert.Equal("GET_FEATURES", reply.GetProperty("name").GetString());
        Assert.Equal("back-end", reply.GetProperty("from").GetString());
        Assert.Equal(1, reply.GetProperty("answers").GetInt32());
        Assert.True(reply.GetProperty("reply").GetBoolean());
        Assert.Contains("VERSION_1", Words(reply.GetProperty("fields").GetProperty("features").GetProperty("names")));
        Assert.Equal("closed", lines[^1].GetProperty("event").GetString());
    }

    [Fact]
    public async Task A_back_end_that_is_not_there_closes_the_connection_and_the_next_may_find_it()
    {
        await using OutboardProcess trace = OutboardProcess.Start(
            "trace", $"--listen={_folder["t"]}", $"--connect={_folder["s"]}");
        await trace.WaitForFileAsync(_folder["t"]);
        (await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["t"]}")).AssertFailed(1, "GET_FEATURES");
        await using OutboardProcess backend = await ServeAsync();
        Assert.Equal(0, (await OutboardProcess.RunAsync("inspect", $"--socket-path={_folder["t"]}")).ExitCode);
        trace.Signal("TERM");
        Outcome outcome = await trace.EndAsync();
        Assert.Equal(0, outcome.ExitCode);
        Assert.Contains($"--connect={_folder["s"]}", outcome.Errors, StringComparison.Ordinal);
    }

    private static IEnumerable<string?> Words(JsonElement array) =>
        array.EnumerateArray().Select(word => word.GetString());

    private async Task<OutboardProcess> ServeAsync()
    {
        OutboardProcess backend = OutboardProcess.Start(
            "block", "--null-size=1M", "--num-queues=2", $"--socket-path={_folder["s"]}", "--quiet");
        await backend.ListensAsync(_folder["s"]);
        return backend;
    }
}

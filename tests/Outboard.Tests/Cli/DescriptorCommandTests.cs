// install-descriptors and list-backends: what the one writes, the other finds, and what it names can be called.
using System.Text.Json;
using Outboard.VhostUser.Discovery;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class DescriptorCommandTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private string Descriptors => _folder["share/qemu/vhost-user"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task What_is_installed_is_listed_and_can_be_called()
    {
        string[] types = ["block", "console", "net", "rng"];
        Outcome installed = await OutboardProcess.RunAsync("install-descriptors", "--prefix", _folder.Path);
        Assert.Equal(0, installed.ExitCode);
        Assert.Equal(
            string.Concat(types.Select(
                type => $"{_folder[$"bin/outboard-{type}"]}\n{Descriptors}/50-outboard-{type}.json\n")),
            installed.Output);
        Assert.Contains("note: ", installed.Errors, StringComparison.Ordinal);

        Outcome listed = await OutboardProcess.RunAsync("list-backends", "--json", "--directory", Descriptors);
        Assert.Equal(0, listed.ExitCode);
        Assert.Empty(listed.Errors);
        JsonElement[] backends = [.. JsonDocument.Parse(listed.Output).RootElement.EnumerateArray()];
        Assert.Equal(types, backends.Select(backend => backend.GetProperty("type").GetString()));
        foreach ((JsonElement backend, string type) in backends.Zip(types))
        {
            string binary = backend.GetProperty("binary").GetString()!;
            Assert.Equal(_folder[$"bin/outboard-{type}"], binary);
            await using OutboardProcess called = OutboardProcess.StartProgram(binary, ["--print-capabilities"]);
            Outcome outcome = await called.EndAsync();
            Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
            Assert.Equal(type, BackendCapabilities.Parse(System.Text.Encoding.UTF8.GetBytes(outcome.Output)).Type);
        }
    }

    [Fact]
    public async Task Installing_again_replaces_both_files()
    {
        string program = _folder.Write("elsewhere/outboard", "old");
        await OutboardProcess.RunAsync("install-descriptors", "--prefix", _folder.Path, "--binary", program);
        Assert.Equal(program, new FileInfo(_folder["bin/outboard-block"]).LinkTarget);
        await OutboardProcess.RunAsync("install-descriptors", "--prefix", _folder.Path);
        Assert.Equal(OutboardProcess.Program, new FileInfo(_folder["bin/outboard-block"]).LinkTarget);
        Assert.Equal(4, Directory.GetFiles(Descriptors).Length);
    }

    [Fact]
    public async Task The_link_is_relative_beside_the_program()
    {
        string program = _folder.Write("bin/outboard", "program");
        Outcome outcome = await OutboardProcess.RunAsync(
            "install-descriptors", "--prefix", _folder.Path, "--binary", program);
        Assert.Equal(0, outcome.ExitCode);
        Assert.Equal("outboard", new FileInfo(_folder["bin/outboard-block"]).LinkTarget);
    }

    [Fact]
    public async Task What_is_no_link_is_not_replaced()
    {
        string file = _folder.Write("bin/outboard-rng", "precious");
        Outcome outcome = await OutboardProcess.RunAsync("install-descriptors", "--prefix", _folder.Path);
        outcome.AssertFailed(1, file, "no link", "remove it");
        Assert.Equal("precious", File.ReadAllText(file));
        Assert.Single(Directory.GetFiles(_folder["bin"]));
    }

    [Fact]
    public async Task A_program_that_is_not_there_is_refused()
    {
        Outcome outcome = await OutboardProcess.RunAsync(
            "install-descriptors", "--prefix", _folder.Path, "--binary", _folder["none"]);
        outcome.AssertFailed(2, $"--binary={_folder["none"]}", "give the path");
    }

    [Fact]
    public async Task The_user_directory_is_the_most_specific()
    {
        string configuration = _folder["config"];
        _folder.Write("config/qemu/vhost-user/20-b.json", Json("b", "zz-outboard-test"));
        _folder.Write("config/qemu/vhost-user/10-a.json", Json("a", "zz-outboard-test"));
        _folder.Write("config/qemu/vhost-user/05-broken.json", "{");
        await using OutboardProcess process = OutboardProcess.StartProgram(
            OutboardProcess.Program, ["list-backends", "--type=zz-outboard-test"], ("XDG_CONFIG_HOME", configuration));
        Outcome outcome = await process.EndAsync();
        Assert.Equal(0, outcome.ExitCode);
        string[] lines = outcome.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(3, lines.Length);
        Assert.StartsWith("TYPE", lines[0], StringComparison.Ordinal);
        Assert.EndsWith("  a", lines[1], StringComparison.Ordinal);
        Assert.EndsWith("  b", lines[2], StringComparison.Ordinal);
        Assert.Contains("05-broken.json: skipped: ", outcome.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Nothing_found_is_no_failure()
    {
        Outcome outcome = await OutboardProcess.RunAsync(
            "list-backends", "--json", "--type=gpu", "--directory", _folder.Path);
        Assert.Equal(0, outcome.ExitCode);
        Assert.Equal("[]\n", outcome.Output);
        Assert.Contains($"no back-end of type gpu in {_folder.Path}", outcome.Errors, StringComparison.Ordinal);
    }

    private static string Json(string description, string type) =>
        $$"""{"description":"{{description}}","type":"{{type}}","binary":"/bin/true"}""";
}

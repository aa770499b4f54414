// The samples, built from their one file and run as a reader would run them: the front-end asks the entropy device for
// bytes, over a socket.
using System.Diagnostics;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class SampleRunTests : IDisposable
{
    /// <summary>A build on a busy machine takes minutes; nothing here waits that long when all is well.</summary>
    private static readonly TimeSpan s_buildLimit = TimeSpan.FromMinutes(10);

    private static readonly TimeSpan s_runLimit = TimeSpan.FromMinutes(1);

    private readonly string _folder = Directory.CreateTempSubdirectory("outboard-samples-").FullName;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task The_front_end_gets_random_bytes_from_the_entropy_device()
    {
        string device = await BuildAsync("HelloRng");
        string frontend = await BuildAsync("HelloFrontend");
        string socket = Path.Combine(_folder, "rng.sock");
        using Process backend = Start(device, socket);
        try
        {
            await WaitForSocketAsync(backend, socket);
            string first = await RunAsync(frontend, s_runLimit, socket);
            string second = await RunAsync(frontend, s_runLimit, socket);
            Assert.Matches("^32 random bytes: [0-9A-F]{64}\n$", first);
            Assert.Matches("^32 random bytes: [0-9A-F]{64}\n$", second);
            Assert.NotEqual(first, second);
            Assert.False(backend.HasExited);
        }
        finally
        {
            backend.Kill();
            await backend.WaitForExitAsync(CancellationToken.None);
        }
    }

    private async Task<string> BuildAsync(string name)
    {
        string output = Path.Combine(_folder, name);
        string source = Path.Combine(Repository.Root, "samples", name + ".cs");
        string[] arguments = ["build", source, "--output", output, "--verbosity", "quiet"];
        await RunAsync("dotnet", s_buildLimit, arguments);
        return Path.Combine(output, name);
    }

    private static async Task WaitForSocketAsync(Process backend, string socket)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!File.Exists(socket))
        {
            Assert.False(backend.HasExited, "the back-end has ended");
            Assert.True(watch.Elapsed < s_runLimit, "the back-end does not listen");
            await Task.Delay(20, Cancellation);
        }
    }

    private static async Task<string> RunAsync(string program, TimeSpan limit, params string[] arguments)
    {
        using Process process = Start(program, arguments);
        using CancellationTokenSource time = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        time.CancelAfter(limit);
        try
        {
            Task<string> error = process.StandardError.ReadToEndAsync(time.Token);
            string output = await process.StandardOutput.ReadToEndAsync(time.Token);
            await process.WaitForExitAsync(time.Token);
            Assert.True(process.ExitCode == 0, $"{program}: status {process.ExitCode}\n{output}\n{await error}");
            return output;
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
    }

    private static Process Start(string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Repository.Root,
        };
        return Process.Start(start)!;
    }
}

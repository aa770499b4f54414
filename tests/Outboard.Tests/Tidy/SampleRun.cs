// Builds samples from their one file, and runs them as a reader would.
using System.Diagnostics;
using Xunit;

namespace Outboard.Tests.Tidy;

/// <summary>A folder with samples that were built, and their sockets.</summary>
internal sealed class SampleRun : IDisposable
{
    /// <summary>A build on a busy machine takes minutes; nothing here waits that long when all is well.</summary>
    private static readonly TimeSpan s_buildLimit = TimeSpan.FromMinutes(10);

    private static readonly TimeSpan s_runLimit = TimeSpan.FromMinutes(1);

    private readonly string _folder = Directory.CreateTempSubdirectory("outboard-samples-").FullName;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public string PathOf(string name) => Path.Combine(_folder, name);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Builds a sample.</summary>
    /// <returns>The program.</returns>
    public async Task<string> BuildAsync(string name)
    {
        string output = PathOf(name);
        string source = Path.Combine(Repository.Root, "samples", name + ".cs");
        await RunAsync("dotnet", s_buildLimit, ["build", source, "--output", output, "--verbosity", "quiet"]);
        return Path.Combine(output, name);
    }

    /// <summary>Runs a program to its end.</summary>
    /// <returns>What it printed.</returns>
    public Task<string> RunAsync(string program, params string[] arguments) =>
        RunAsync(program, s_runLimit, arguments);

    /// <summary>Starts a program that listens on a socket; it must live until it is disposed.</summary>
    public async Task<IAsyncDisposable> ServeAsync(string program, string socket)
    {
        Server server = new(Start(program, socket));
        Stopwatch watch = Stopwatch.StartNew();
        while (!File.Exists(socket))
        {
            Assert.False(server.HasExited, "the program has ended");
            Assert.True(watch.Elapsed < s_runLimit, "the program does not listen");
            await Task.Delay(20, Cancellation);
        }

        return server;
    }

    private static async Task<string> RunAsync(string program, TimeSpan limit, string[] arguments)
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

    private sealed class Server(Process process) : IAsyncDisposable
    {
        internal bool HasExited => process.HasExited;

        public async ValueTask DisposeAsync()
        {
            bool lived = !process.HasExited;
            if (lived)
            {
                process.Kill();
            }

            await process.WaitForExitAsync(CancellationToken.None);
            process.Dispose();
            Assert.True(lived, "the program has ended by itself");
        }
    }
}

// The program "outboard" as a process: the one that was built with these tests, or the one that OUTBOARD_PROGRAM names.
using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Xunit;

namespace Outboard.Tests.Cli;

/// <summary>How a run of the program ended.</summary>
internal sealed record Outcome(int ExitCode, string Output, string Errors)
{
    /// <summary>Checks that the program failed and told it in one line, which has all of these words.</summary>
    public void AssertFailed(int exitCode, params string[] words)
    {
        Assert.Equal(exitCode, ExitCode);
        Assert.Empty(Output);
        Assert.EndsWith("\n", Errors, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', Errors[..^1]);
        Assert.All(words, word => Assert.Contains(word, Errors, StringComparison.Ordinal));
    }
}

internal sealed class OutboardProcess : IAsyncDisposable
{
    /// <summary>For what takes milliseconds on an idle machine.</summary>
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(5);

    private readonly Process _process;
    private readonly Task<string> _output;
    private readonly Task<string> _errors;

    private OutboardProcess(Process process)
    {
        _process = process;
        _output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        _errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>Path of the program.</summary>
    public static string Program { get; } = Find();

    public static OutboardProcess Start(params IEnumerable<string> arguments) => StartProgram(Program, arguments);

    /// <summary>Starts the program by another name, or another program that starts it.</summary>
    public static OutboardProcess StartProgram(
        string program, IEnumerable<string> arguments, params (string Name, string Value)[] environment)
    {
        ProcessStartInfo information = new(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };

        // Wherever the runtime of these tests is installed, the program finds it.
        string runtime = RuntimeEnvironment.GetRuntimeDirectory();
        information.Environment["DOTNET_ROOT"] = Path.GetFullPath(Path.Combine(runtime, "..", "..", ".."));
        foreach ((string name, string value) in environment)
        {
            information.Environment[name] = value;
        }

        return new OutboardProcess(Process.Start(information)!);
    }

    /// <summary>Runs the program to its end.</summary>
    public static async Task<Outcome> RunAsync(params IEnumerable<string> arguments)
    {
        await using OutboardProcess process = Start(arguments);
        return await process.EndAsync();
    }

    /// <summary>Waits until the socket accepts.</summary>
    public async Task ListensAsync(string path)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!CanConnect(path))
        {
            Assert.False(_process.HasExited, _process.HasExited ? await _errors : string.Empty);
            Assert.True(watch.Elapsed < Limit, $"nobody listens on {path}");
            await Task.Delay(s_pollInterval, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>Waits until a file or socket is there, without connecting to it.</summary>
    public async Task WaitForFileAsync(string path)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!File.Exists(path))
        {
            Assert.False(_process.HasExited, _process.HasExited ? await _errors : string.Empty);
            Assert.True(watch.Elapsed < Limit, $"{path} does not appear");
            await Task.Delay(s_pollInterval, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>
    /// The processors that each thread with such a name may use, as the kernel writes them: the threads of one device.
    /// </summary>
    public string[] ProcessorsOfThreads(string nameStart)
    {
        string tasks = $"/proc/{_process.Id}/task";
        return
        [
            .. Directory.GetDirectories(tasks)
                .Where(task => File.ReadAllText($"{task}/comm").StartsWith(nameStart, StringComparison.Ordinal))
                .Select(task => File.ReadLines($"{task}/status")
                    .First(line => line.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)).Split('\t')[1]),
        ];
    }

    /// <summary>Sends a signal, named as for kill(1).</summary>
    public void Signal(string name)
    {
        using Process kill = Process.Start("/bin/sh", ["-c", $"kill -{name} {_process.Id}"]);
        kill.WaitForExit();
    }

    /// <summary>Waits for the end.</summary>
    public async Task<Outcome> EndAsync()
    {
        await _process.WaitForExitAsync(TestContext.Current.CancellationToken).WaitAsync(Limit);
        return new Outcome(_process.ExitCode, await _output, await _errors);
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            await _process.WaitForExitAsync();
        }

        _process.Dispose();
    }

    private static bool CanConnect(string path)
    {
        // Absent most of the time, and an exception each time is slow.
        if (!File.Exists(path))
        {
            return false;
        }

        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private static string Find()
    {
        if (Environment.GetEnvironmentVariable("OUTBOARD_PROGRAM") is { } named)
        {
            return named;
        }

        // .../tests/Outboard.Tests/bin/CONFIGURATION/FRAMEWORK
        DirectoryInfo framework = new(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        string root = framework.Parent!.Parent!.Parent!.Parent!.Parent!.FullName;
        return Path.Combine(root, "tools", "Outboard.Cli", "bin", framework.Parent.Name, framework.Name, "outboard");
    }
}

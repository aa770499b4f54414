// PeerProcess.cs - a running program: one of the peers tree or any other. Its output is collected, it is ended by its
// process id, and nothing of it survives DisposeAsync, which also notes the output for the report of a failed test.
using System.Diagnostics;
using System.Globalization;
using Xunit;

namespace Outboard.InteropTests.Lab;

internal sealed class PeerProcess : IAsyncDisposable
{
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(10);

    private readonly Process _process;
    private readonly string _commandLine;
    private readonly Task _collecting;
    private bool _disposed;

    private PeerProcess(string name, string program, IReadOnlyList<string> arguments)
    {
        Name = name;
        _commandLine = string.Join(' ', arguments.Prepend(program));
        Output = new OutputLog($"{name}, standard output");
        Errors = new OutputLog($"{name}, standard error");
        _process = ProcessStarter.Start(program, arguments);
        Id = _process.Id;
        _collecting = Task.WhenAll(
            Output.CollectAsync(_process.StandardOutput), Errors.CollectAsync(_process.StandardError));
    }

    public string Name { get; }

    public int Id { get; }

    public OutputLog Output { get; }

    public OutputLog Errors { get; }

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    public StreamWriter Input => _process.StandardInput;

    /// <summary>Starts a program of the peers tree; the tree is made first when it is missing.</summary>
    public static async Task<PeerProcess> StartPeerAsync(string program, params IEnumerable<string> arguments)
    {
        Peers peers = await Peers.ReadyAsync();
        return new PeerProcess(program, peers.Runner, ["--die-with-parent", program, .. arguments]);
    }

    /// <summary>Starts a program of this machine.</summary>
    public static PeerProcess StartProgram(string program, params IEnumerable<string> arguments) =>
        new(Path.GetFileName(program), "setpriv", ["--pdeathsig", "KILL", "--", program, .. arguments]);

    /// <summary>Waits until the program accepts connections at a Unix socket.</summary>
    public async Task WaitForSocketAsync(string path, TimeSpan limit)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!ListeningSockets.Contains(path, Id))
        {
            if (_process.HasExited)
            {
                await _collecting.WaitAsync(s_grace);
                throw new LabException($"ended before it listened at {path}. {Describe()}");
            }

            if (watch.Elapsed > limit)
            {
                throw new LabException($"did not listen at {path} within {limit}. {Describe()}");
            }

            await Task.Delay(s_pollInterval);
        }
    }

    /// <summary>Waits for the end of the program and of its output; gives the exit status.</summary>
    public async Task<int> WaitForExitAsync(TimeSpan limit)
    {
        try
        {
            await _process.WaitForExitAsync().WaitAsync(limit);
            await _collecting.WaitAsync(s_grace);
        }
        catch (TimeoutException exception)
        {
            throw new LabException($"did not end within {limit}. {Describe()}", exception);
        }

        return _process.ExitCode;
    }

    /// <summary>Sends a signal, named as for kill(1): TERM, HUP, STOP and so on.</summary>
    public async Task SignalAsync(string signal)
    {
        if (_process.HasExited)
        {
            return;
        }

        string id = Id.ToString(CultureInfo.InvariantCulture);
        using Process kill = Process.Start("/bin/sh", ["-c", "kill -s \"$1\" \"$2\"", "sh", signal, id]);
        await kill.WaitForExitAsync();
    }

    /// <summary>Asks the program to end, and kills it when it does not.</summary>
    public async Task TerminateAsync()
    {
        await SignalAsync("TERM");
        try
        {
            await _process.WaitForExitAsync().WaitAsync(s_grace);
        }
        catch (TimeoutException)
        {
            await KillAsync();
        }
    }

    /// <summary>Ends the program at once, as a crash would.</summary>
    public async Task KillAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
        }

        await _process.WaitForExitAsync().WaitAsync(s_grace);
    }

    /// <summary>What to show in a message: the command line, the exit status if there is one, and the output.</summary>
    public string Describe()
    {
        string state = _process.HasExited ? $"exit status {_process.ExitCode}" : $"running as process {Id}";
        return $"{Name} ({state})\ncommand: {_commandLine}\n" +
            $"standard output: {Output.Tail}\nstandard error: {Errors.Tail}";
    }

    public async ValueTask DisposeAsync()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        await TerminateAsync();
        try
        {
            await _collecting.WaitAsync(s_grace);
        }
        catch (TimeoutException)
        {
            // a process that the program started holds its streams open; closing them is all that can be done
        }

        Report();
        _process.Dispose();
    }

    // the runner shows this for failed tests only
    private void Report()
    {
        try
        {
            TestContext.Current.TestOutputHelper?.WriteLine(Describe());
        }
        catch (InvalidOperationException)
        {
            // the test is over already
        }
    }
}

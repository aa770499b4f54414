// A back-end of this same program, such as "outboard block", in a process of its own. A process, so that killing it is
// real.
using System.Diagnostics;
using System.Text;

namespace Outboard.Cli.Bench;

internal sealed class BackendProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _errors = new();

    private BackendProcess(Process process)
    {
        _process = process;
        _process.ErrorDataReceived += (_, line) =>
        {
            lock (_errors)
            {
                _errors.AppendLine(line.Data);
            }
        };
        _process.BeginErrorReadLine();
    }

    public int ProcessId => _process.Id;

    public bool HasEnded => _process.HasExited;

    /// <summary>Waits until it ends.</summary>
    public Task WaitForEndAsync(CancellationToken cancellation) => _process.WaitForExitAsync(cancellation);

    /// <summary>What it said on standard error.</summary>
    public string Errors
    {
        get
        {
            lock (_errors)
            {
                return _errors.ToString().Trim();
            }
        }
    }

    /// <summary>Starts this program with other arguments.</summary>
    public static BackendProcess Start(params IEnumerable<string> arguments)
    {
        string program = Environment.ProcessPath ?? throw new IOException("this program does not know its own path");
        ProcessStartInfo information = new(program) { RedirectStandardError = true, RedirectStandardInput = true };
        if (Path.GetFileNameWithoutExtension(program) == "dotnet")
        {
            // Run as "dotnet outboard.dll".
            information.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "outboard.dll"));
        }

        foreach (string argument in arguments)
        {
            information.ArgumentList.Add(argument);
        }

        return new BackendProcess(Process.Start(information) ?? throw new IOException($"{program} did not start"));
    }

    /// <summary>kill -9.</summary>
    public async Task KillAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync().ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            await KillAsync().ConfigureAwait(false);
        }

        _process.Dispose();
    }
}

// The back-end of the demo: this same program, as "outboard block", in a process of its own. A process, so that killing
// it is real.
using System.Diagnostics;
using System.Text;

namespace Outboard.Cli.Demo;

internal sealed class DemoBackend : IAsyncDisposable
{
    private readonly Process _process;
    private readonly StringBuilder _errors = new();

    private DemoBackend(Process process)
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

    public static DemoBackend Start(DemoFolder folder, string serial)
    {
        string program = Environment.ProcessPath ?? throw new IOException("this program does not know its own path");
        ProcessStartInfo information = new(program) { RedirectStandardError = true, RedirectStandardInput = true };
        if (Path.GetFileNameWithoutExtension(program) == "dotnet")
        {
            // Run as "dotnet outboard.dll".
            information.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "outboard.dll"));
        }

        information.ArgumentList.Add("block");
        information.ArgumentList.Add($"--socket-path={folder.SocketPath}");
        information.ArgumentList.Add($"--blk-file={folder.ImagePath}");
        information.ArgumentList.Add($"--serial={serial}");
        information.ArgumentList.Add("--quiet");

        return new DemoBackend(Process.Start(information) ?? throw new IOException($"{program} did not start"));
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

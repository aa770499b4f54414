// Peers.cs - finds the tree of foreign programs and the test machine, making both on first use (eng/peers.sh).
// A machine on which they cannot be made fails the tests that need them: a skipped test would say nothing.
using System.Diagnostics;

namespace Outboard.InteropTests.Lab;

internal sealed class Peers
{
    private static readonly TimeSpan s_makeLimit = TimeSpan.FromMinutes(20);
    private static readonly Lazy<Task<Peers>> s_ready = new(MakeAsync);

    private Peers(string runner, string guestFolder)
    {
        Runner = runner;
        GuestFolder = guestFolder;
    }

    /// <summary>The program that runs a program of the tree.</summary>
    public string Runner { get; }

    /// <summary>The folder with the test machine's vmlinux and initrd.cpio.</summary>
    public string GuestFolder { get; }

    /// <summary>The folder of the checkout.</summary>
    public static string RepositoryFolder { get; } = FindRepository();

    public static Task<Peers> ReadyAsync() => s_ready.Value;

    private static string FindRepository()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Outboard.slnx")))
            {
                return folder.FullName;
            }
        }

        throw new LabException($"no folder above {AppContext.BaseDirectory} holds Outboard.slnx");
    }

    private static async Task<Peers> MakeAsync()
    {
        string builder = Path.Combine(RepositoryFolder, "eng", "guest", "build.sh");
        ProcessStartInfo information = new(builder)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(information) ?? throw new LabException($"{builder} did not start");
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        try
        {
            await process.WaitForExitAsync().WaitAsync(s_makeLimit);
        }
        catch (TimeoutException exception)
        {
            process.Kill(entireProcessTree: true);
            throw new LabException($"{builder} did not end within {s_makeLimit}: {await errors}", exception);
        }

        string folder = (await output).Trim();
        if (process.ExitCode != 0 || folder.Length == 0)
        {
            throw new LabException($"the foreign programs are not available; {builder} says:\n{await errors}");
        }

        return new Peers(Path.Combine(RepositoryFolder, "eng", "peer.sh"), folder);
    }
}

// Peers.cs - finds the tree of foreign programs and the test machine, making both on first use (eng/peers.sh).
// A machine on which they cannot be made fails the tests that need them: a skipped test would say nothing.
using System.Diagnostics;

namespace Outboard.InteropTests.Lab;

internal sealed class Peers
{
    private static readonly TimeSpan s_makeLimit = TimeSpan.FromMinutes(20);
    private static readonly Lazy<Task<Peers>> s_ready = new(MakeAsync);
    private static readonly Dictionary<string, Task> s_sets = [];

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

    /// <summary>Makes an optional set of programs (eng/peers.sh --with) a part of the tree.</summary>
    public static Task RequireAsync(string set)
    {
        lock (s_sets)
        {
            if (!s_sets.TryGetValue(set, out Task? making))
            {
                making = RunAsync(Path.Combine(RepositoryFolder, "eng", "peers.sh"), "--with", set);
                s_sets[set] = making;
            }

            return making;
        }
    }

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
        string folder = await RunAsync(Path.Combine(RepositoryFolder, "eng", "guest", "build.sh"));
        return new Peers(Path.Combine(RepositoryFolder, "eng", "peer.sh"), folder);
    }

    /// <summary>Runs a script to its end and gives the folder that it prints.</summary>
    private static async Task<string> RunAsync(string script, params string[] arguments)
    {
        ProcessStartInfo information = new(script, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(information) ?? throw new LabException($"{script} did not start");
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
            throw new LabException($"{script} did not end within {s_makeLimit}: {await errors}", exception);
        }

        string folder = (await output).Trim();
        return process.ExitCode == 0 && folder.Length > 0
            ? folder
            : throw new LabException($"the foreign programs are not available; {script} says:\n{await errors}");
    }
}

// GuestProgram.cs - the program "outboard" as it runs in the test machine, which has no runtime: compiled ahead of time
// (eng/aot.sh), with the libraries that the machine may lack. It is built when it is missing or older than a source.
using System.Diagnostics;

namespace Outboard.InteropTests.Lab;

internal static class GuestProgram
{
    private static readonly TimeSpan s_buildLimit = TimeSpan.FromMinutes(20);
    private static readonly Lazy<Task<string>> s_path = new(BuildAsync);

    /// <summary>Files to bring into a machine that is to run the program as /outboard.</summary>
    public static async Task<IReadOnlyDictionary<string, string>> FilesAsync()
    {
        Peers peers = await Peers.ReadyAsync();
        const string mathematics = "/lib/x86_64-linux-gnu/libm.so.6";
        return new Dictionary<string, string>
        {
            ["/outboard"] = await s_path.Value,
            [mathematics] = Path.Combine(peers.GuestFolder, "..", "tree", mathematics.TrimStart('/')),
        };
    }

    private static async Task<string> BuildAsync()
    {
        string root = Peers.RepositoryFolder;
        string path = Path.Combine(root, "artifacts", "aot", "outboard");
        DateTime newest = new[] { "src", "tools" }
            .SelectMany(folder => Directory.EnumerateFiles(
                Path.Combine(root, folder), "*.cs", SearchOption.AllDirectories))
            .Where(file => !file.Contains("/obj/", StringComparison.Ordinal))
            .Max(File.GetLastWriteTimeUtc);
        if (File.Exists(path) && File.GetLastWriteTimeUtc(path) >= newest)
        {
            return path;
        }

        ProcessStartInfo information = new("bash", [Path.Combine(root, "eng", "aot.sh")])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(information) ?? throw new LabException("eng/aot.sh did not start");
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync().WaitAsync(s_buildLimit);
        return process.ExitCode == 0
            ? path
            : throw new LabException($"eng/aot.sh failed:\n{await output}\n{await errors}");
    }
}

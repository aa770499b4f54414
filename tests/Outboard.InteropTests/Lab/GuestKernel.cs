// GuestKernel.cs - modules of the test machine's kernel that Debian builds otherwise (eng/guest/noiommu.sh).
using System.Diagnostics;

namespace Outboard.InteropTests.Lab;

internal static class GuestKernel
{
    private static readonly TimeSpan s_buildLimit = TimeSpan.FromMinutes(10);
    private static readonly Lazy<Task<string>> s_vfio = new(BuildAsync);

    /// <summary>
    /// The module vfio with its no-IOMMU mode: the path inside a machine where it takes the place of Debian's, and the
    /// path here.
    /// </summary>
    public static async Task<(string Inside, string Outside)> VfioWithoutIommuAsync()
    {
        Peers peers = await Peers.ReadyAsync();
        string modules = Path.Combine(peers.GuestFolder, "..", "tree", "usr", "lib", "modules");
        string release = Path.GetFileName(Directory.GetDirectories(modules).Single());
        return ($"/lib/modules/{release}/vfio.ko", await s_vfio.Value);
    }

    private static async Task<string> BuildAsync()
    {
        string script = Path.Combine(Peers.RepositoryFolder, "eng", "guest", "noiommu.sh");
        ProcessStartInfo information = new("bash", [script])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(information) ?? throw new LabException($"{script} did not start");
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync().WaitAsync(s_buildLimit);
        return process.ExitCode == 0
            ? (await output).Trim()
            : throw new LabException($"{script} failed:\n{await errors}");
    }
}

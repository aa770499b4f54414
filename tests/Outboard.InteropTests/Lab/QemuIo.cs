// QemuIo.cs - drives a vhost-user-blk back-end without a machine: qemu-io and qemu-img are front-ends of their own by
// way of libblkio.
namespace Outboard.InteropTests.Lab;

internal static class QemuIo
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(3);

    /// <summary>Runs qemu-io commands, for example "write -P 0x5a 0 64k", on the disk behind a socket.</summary>
    public static Task<string> RunAsync(string socketPath, params IEnumerable<string> commands) =>
        RunToolAsync("qemu-io", ["--image-opts", DiskAt(socketPath), .. CommandArguments(commands)]);

    /// <summary>As <see cref="RunAsync"/>, for a disk that cannot be written.</summary>
    public static Task<string> RunReadOnlyAsync(string socketPath, params IEnumerable<string> commands) =>
        RunToolAsync("qemu-io", ["-r", "--image-opts", DiskAt(socketPath), .. CommandArguments(commands)]);

    /// <summary>Runs reading qemu-io commands on an image file, which a back-end may have locked.</summary>
    public static Task<string> ReadFileAsync(string imagePath, params IEnumerable<string> commands) =>
        RunToolAsync("qemu-io", ["-r", "-U", "-f", "raw", imagePath, .. CommandArguments(commands)]);

    /// <summary>Runs qemu-io commands on an image file, which qemu-io locks for writing.</summary>
    public static Task<string> RunOnFileAsync(string imagePath, params IEnumerable<string> commands) =>
        RunToolAsync("qemu-io", ["-f", "raw", imagePath, .. CommandArguments(commands)]);

    /// <summary>Reads or writes a number of requests, several at a time.</summary>
    public static Task<string> BenchAsync(string socketPath, int requests, int depth, int size, bool writes = false)
    {
        string[] direction = writes ? ["-w"] : [];
        return RunToolAsync(
            "qemu-img",
            [
                "bench", .. direction, "-c", $"{requests}", "-d", $"{depth}", "-s", $"{size}", "-t", "none",
                "--image-opts", DiskAt(socketPath),
            ]);
    }

    /// <summary>Fails unless the disk behind a socket and an image file have the same content.</summary>
    public static Task<string> CompareAsync(string socketPath, string imagePath) =>
        RunToolAsync(
            "qemu-img", ["compare", "-U", "--image-opts", DiskAt(socketPath), $"driver=raw,file.filename={imagePath}"]);

    /// <summary>Copies the disk behind a socket into an image file.</summary>
    public static Task<string> CopyToFileAsync(string socketPath, string imagePath) =>
        RunToolAsync("qemu-img", ["convert", "--image-opts", DiskAt(socketPath), "-O", "raw", imagePath]);

    private static string DiskAt(string socketPath) =>
        $"driver=virtio-blk-vhost-user,path={socketPath},cache.direct=on";

    private static IEnumerable<string> CommandArguments(IEnumerable<string> commands) =>
        commands.SelectMany(command => (string[])["-c", command]);

    private static async Task<string> RunToolAsync(string tool, IEnumerable<string> arguments)
    {
        await using PeerProcess process = await PeerProcess.StartPeerAsync(tool, arguments);
        process.Input.Close();
        int status = await process.WaitForExitAsync(s_limit);
        bool mismatch = process.Output.Text.Contains("verification failed", StringComparison.Ordinal);
        return status == 0 && !mismatch ? process.Output.Text : throw new LabException(process.Describe());
    }
}

// The folder of a demo: image and socket. Removed with everything in it.
namespace Outboard.Cli.Demo;

internal sealed class DemoFolder : IDisposable
{
    private readonly DirectoryInfo _directory;

    /// <param name="parent">Where to make it; null takes the temporary folder.</param>
    public DemoFolder(string? parent) => _directory = parent is null
        ? Directory.CreateTempSubdirectory("outboard-")
        : Directory.CreateDirectory(Path.Combine(parent, $"outboard-{Environment.ProcessId}"));

    public string ImagePath => Path.Combine(_directory.FullName, "disk.img");

    public string SocketPath => Path.Combine(_directory.FullName, "disk.sock");

    /// <summary>Makes the image: zeroes that take no space until they are written.</summary>
    public void CreateImage(long sizeBytes)
    {
        using FileStream file = new(ImagePath, FileMode.CreateNew, FileAccess.Write);
        file.SetLength(sizeBytes);
    }

    public void Dispose() => _directory.Delete(recursive: true);
}

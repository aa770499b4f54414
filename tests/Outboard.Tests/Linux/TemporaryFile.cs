// A file that ends with the test, on disk or in memory.
using Outboard.Linux.Files;
using Xunit;

namespace Outboard.Tests.Linux;

internal sealed class TemporaryFile : IDisposable
{
    private TemporaryFile(string path, long sizeBytes)
    {
        Path = path;
        using FileStream stream = new(path, FileMode.CreateNew, FileAccess.Write);
        stream.SetLength(sizeBytes);
    }

    public string Path { get; }

    /// <summary>In the directory of temporary files: usually a real file system.</summary>
    public static TemporaryFile OnDisk(long sizeBytes) =>
        new(System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"outboard-{Guid.NewGuid():N}"), sizeBytes);

    /// <summary>On tmpfs, or the test is skipped.</summary>
    public static TemporaryFile InMemory(long sizeBytes)
    {
        Assert.SkipUnless(Directory.Exists("/dev/shm"), "no tmpfs at /dev/shm");
        return new TemporaryFile($"/dev/shm/outboard-{Guid.NewGuid():N}", sizeBytes);
    }

    /// <summary>Whether somebody has locked it as an image.</summary>
    public bool IsLocked()
    {
        using BlockFile file = BlockFile.Open(Path);
        bool isFree = file.TryLock(exclusive: true);
        if (isFree)
        {
            file.Unlock();
        }

        return !isFree;
    }

    public void Dispose() => File.Delete(Path);
}

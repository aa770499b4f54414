// A folder that ends with the test, and short enough for the paths of sockets.
namespace Outboard.Tests.Cli;

internal sealed class TemporaryFolder : IDisposable
{
    public TemporaryFolder() => Path = Directory.CreateTempSubdirectory("outboard-").FullName;

    public string Path { get; }

    public string this[string name] => System.IO.Path.Combine(Path, name);

    /// <summary>Makes a file, with its folders.</summary>
    public string Write(string name, string text)
    {
        string path = this[name];
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
        File.WriteAllText(path, text);
        return path;
    }

    /// <summary>Makes a file of zeroes.</summary>
    public string WriteZeroes(string name, long sizeBytes)
    {
        using FileStream file = new(this[name], FileMode.CreateNew, FileAccess.Write);
        file.SetLength(sizeBytes);
        return file.Name;
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}

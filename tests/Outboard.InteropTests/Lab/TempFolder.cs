// TempFolder.cs - a folder for the sockets and images of one test, removed with everything in it at the end.
// Its path is short on purpose: a Unix socket address has room for 107 bytes only.
namespace Outboard.InteropTests.Lab;

internal sealed class TempFolder : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("outboard-");

    public string FullPath => _directory.FullName;

    /// <summary>The path of a file of this folder, which need not exist.</summary>
    public string Combine(string name) => Path.Combine(FullPath, name);

    /// <summary>Makes a file of zeros that takes no space until it is written.</summary>
    public string CreateImage(string name, long length)
    {
        string path = Combine(name);
        using FileStream file = new(path, FileMode.CreateNew, FileAccess.Write);
        file.SetLength(length);
        return path;
    }

    public void Dispose()
    {
        try
        {
            _directory.Delete(recursive: true);
        }
        catch (DirectoryNotFoundException)
        {
            // the test removed it itself
        }
    }
}

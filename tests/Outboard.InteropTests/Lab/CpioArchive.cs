// CpioArchive.cs - writes a cpio archive in the "newc" format that Linux reads as initial file system.
// The kernel unpacks archives that follow each other: this is how a test's files join the test machine's own.
using System.Globalization;
using System.Text;

namespace Outboard.InteropTests.Lab;

internal sealed class CpioArchive : IDisposable
{
    private const int BlockSize = 512;
    private const int FolderMode = 0x41ED; // octal 040755
    private const int ProgramMode = 0x81ED; // octal 0100755

    private readonly FileStream _stream;

    // above the numbers of the archive before, so that no two files look like links to one
    private int _inode = 900_000;

    private CpioArchive(FileStream stream) => _stream = stream;

    /// <summary>Begins an archive behind the existing content of a file.</summary>
    public static CpioArchive AppendTo(string path)
    {
        FileStream stream = new(path, FileMode.Open, FileAccess.Write);
        stream.Seek(0, SeekOrigin.End);
        CpioArchive archive = new(stream);
        archive.Pad(BlockSize);
        return archive;
    }

    public void AddFolder(string name) => Add(name, FolderMode, []);

    public void AddProgram(string name, ReadOnlySpan<byte> content) => Add(name, ProgramMode, content);

    public void Dispose()
    {
        Add("TRAILER!!!", 0, []);
        Pad(BlockSize);
        _stream.Dispose();
    }

    private void Add(string name, int mode, ReadOnlySpan<byte> content)
    {
        int nameLength = Encoding.UTF8.GetByteCount(name) + 1;
        StringBuilder header = new("070701");
        // inode, mode, user, group, links, time, size, device (2), special device (2), length of the name, checksum
        foreach (int field in (int[])[_inode++, mode, 0, 0, 1, 0, content.Length, 0, 0, 0, 0, nameLength, 0])
        {
            header.Append(field.ToString("X8", CultureInfo.InvariantCulture));
        }

        _stream.Write(Encoding.UTF8.GetBytes($"{header}{name}\0"));
        Pad(sizeof(int));
        _stream.Write(content);
        Pad(sizeof(int));
    }

    private void Pad(int alignment)
    {
        int excess = (int)(_stream.Position % alignment);
        if (excess > 0)
        {
            _stream.Write(new byte[alignment - excess]);
        }
    }
}

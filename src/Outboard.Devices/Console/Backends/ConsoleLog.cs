// A file to which a port's output is appended. Where the next byte goes is the device's state, not the file's length:
// what is written again after a kill is written to the same place, so that each byte is there once.
using Outboard.Linux;
using Outboard.Linux.Files;

namespace Outboard.Devices.Console.Backends;

/// <summary>A port's log file.</summary>
public sealed class ConsoleLog : IDisposable
{
    private readonly OwnedFile _file;

    private ConsoleLog(OwnedFile file) => _file = file;

    /// <summary>The path, for messages.</summary>
    public string Name => _file.Name;

    /// <summary>Bytes in the file.</summary>
    public long SizeBytes => _file.SizeBytes;

    /// <summary>Opens a log, or makes one, and locks it.</summary>
    /// <exception cref="IOException">It cannot be opened, or another process has it.</exception>
    public static ConsoleLog Open(string path) => new(OwnedFile.Open(path));

    /// <summary>Cuts off what was written and does not count.</summary>
    /// <exception cref="IOException">The kernel refused.</exception>
    public void Cut(long sizeBytes) => _file.Resize(sizeBytes);

    /// <summary>Writes all of some buffers.</summary>
    /// <returns>0, or the errno that stands in the way.</returns>
    public int Write(ReadOnlySpan<IoSegment> output, long offset)
    {
        Span<IoSegment> rest = stackalloc IoSegment[1];
        foreach (ref readonly IoSegment segment in output)
        {
            rest[0] = segment;
            while (rest[0].Length > 0)
            {
                long written = _file.Write(rest, offset);
                if (written <= 0)
                {
                    return written == 0 ? Errno.InputOutput : (int)-written;
                }

                offset += written;
                rest[0] = rest[0].Slice(written, rest[0].Length - written);
            }
        }

        return 0;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();
}

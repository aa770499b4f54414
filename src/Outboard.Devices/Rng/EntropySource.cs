// Where an entropy device gets its bytes: the operating system's generator, or a device or file that is named.
using System.Security.Cryptography;
using Outboard.Linux;
using Outboard.Linux.Files;

namespace Outboard.Devices.Rng;

/// <summary>A source of random bytes. Used by one thread at a time.</summary>
public abstract class EntropySource : IDisposable
{
    /// <summary>The operating system's generator: never empty, never the same twice.</summary>
    public static EntropySource System { get; } = new SystemEntropySource();

    /// <summary>A line that tells what this is, for logs.</summary>
    public abstract string Description { get; }

    /// <summary>Opens a character device (/dev/hwrng) or a regular file, whose bytes are given once.</summary>
    /// <exception cref="LinuxException">It cannot be opened; the message says what to do.</exception>
    public static EntropySource Open(string path) => new FileEntropySource(SequentialFile.Open(path));

    /// <summary>Gives bytes, without waiting.</summary>
    /// <returns>Bytes; 0 when there will never be more; a negative errno, TryAgain when there are none now.</returns>
    public abstract int Fill(Span<byte> destination);

    /// <summary>Closes the source.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);

    private sealed class SystemEntropySource : EntropySource
    {
        public override string Description => "the system's generator";

        public override int Fill(Span<byte> destination)
        {
            RandomNumberGenerator.Fill(destination);
            return destination.Length;
        }
    }

    private sealed class FileEntropySource(SequentialFile file) : EntropySource
    {
        public override string Description => file.Path;

        public override int Fill(Span<byte> destination) => file.TryRead(destination);

        public override void Dispose()
        {
            file.Dispose();
            base.Dispose();
        }
    }
}

// A file with a name as shared memory: that of a virtual machine whose memory lies in a file (on tmpfs, usually).
using System.Globalization;

namespace Outboard.Linux.Memory;

/// <summary>Opens files that processes share as memory.</summary>
public static class SharedFile
{
    /// <summary>Opens a file for reading and writing, makes it if it is not there, and lengthens it if it is shorter.
    /// What is in it stays; new bytes are zero and take no memory before they are used.</summary>
    /// <param name="path">The file.</param>
    /// <param name="leastBytes">Bytes that it has afterwards, or more.</param>
    /// <exception cref="IOException">It cannot be opened or made longer, or is no file.</exception>
    public static FileDescriptor Open(string path, ulong leastBytes)
    {
        try
        {
            using Microsoft.Win32.SafeHandles.SafeFileHandle handle = File.OpenHandle(
                path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
            FileDescriptor descriptor = FileDescriptor.DuplicateOf((int)handle.DangerousGetHandle());
            if (descriptor.Kind != FileKind.Regular)
            {
                FileKind kind = descriptor.Kind;
                descriptor.Dispose();
                throw new IOException(string.Create(CultureInfo.InvariantCulture, $"{path}: no file, but a {kind}"));
            }

            try
            {
                if (descriptor.FileSizeBytes < leastBytes)
                {
                    MemFd.Resize(descriptor, leastBytes);
                }

                return descriptor;
            }
            catch
            {
                descriptor.Dispose();
                throw;
            }
        }
        catch (UnauthorizedAccessException error)
        {
            throw new IOException(error.Message, error);
        }
    }
}

// What "outboard nvme" was asked for, and the namespaces and the controller that follow from it.
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Virtio;

namespace Outboard.Cli.Nvme;

/// <summary>The settings of the NVMe controller.</summary>
internal sealed record NvmeSettings
{
    private const string StorageRemedy =
        "give one of --blk-file=PATH, --memory-size=SIZE and --null-size=SIZE, or --namespace=PATH";

    public required string SocketPath { get; init; }

    public string? FilePath { get; init; }

    public long? MemorySizeBytes { get; init; }

    public long? NullSizeBytes { get; init; }

    public IReadOnlyList<string> Namespaces { get; init; } = [];

    public bool IsReadOnly { get; init; }

    public bool IsDirect { get; init; }

    public bool IsIncoming { get; init; }

    public bool IsUnlocked { get; init; }

    public string? Serial { get; init; }

    public string? Model { get; init; }

    public int BlockSize { get; init; }

    public bool HasWriteCache { get; init; } = true;

    public int? QueuePairs { get; init; }

    public int? QueueSize { get; init; }

    public ThreadSettings Threads { get; init; } = new();

    public FileIoEngineKind FileEngine { get; init; }

    public bool WatchesSize { get; init; }

    public bool HasMsix { get; init; } = true;

    public bool HasShadowDoorbells { get; init; } = true;

    public LogLevel LogLevel { get; init; } = LogLevel.Information;

    /// <summary>Checks what belongs together.</summary>
    /// <exception cref="CommandLineException">It does not fit.</exception>
    public void Check()
    {
        int storages = (FilePath is null ? 0 : 1) + (MemorySizeBytes is null ? 0 : 1) + (NullSizeBytes is null ? 0 : 1);
        if (storages > 1)
        {
            throw new CommandLineException(
                $"--blk-file, --memory-size and --null-size exclude each other: {StorageRemedy}");
        }

        if (storages + Namespaces.Count == 0)
        {
            throw new CommandLineException($"no storage: {StorageRemedy}");
        }

        if (storages + Namespaces.Count > NvmeController.MaxNamespaces)
        {
            throw new CommandLineException(
                $"--namespace: {storages + Namespaces.Count} in all: give at most {NvmeController.MaxNamespaces}");
        }

        if ((IsIncoming || IsUnlocked) && FilePath is null && Namespaces.Count == 0)
        {
            string option = IsIncoming ? "--incoming" : "--no-lock";
            throw new CommandLineException(
                $"{option}: there is no file; leave it out, or give --blk-file=PATH or --namespace=PATH");
        }

        if (BlockSize is not (0 or 512 or 4096))
        {
            throw new CommandLineException($"--block-size={BlockSize}: give 512 or 4096");
        }

        CheckText("--serial", Serial, NvmeOptions.SerialBytes);
        CheckText("--model", Model, NvmeOptions.ModelBytes);
        foreach (string text in Namespaces)
        {
            _ = Split(text);
        }
    }

    /// <summary>Opens the disks, in the order of the namespaces. They are the caller's, also when this fails.</summary>
    /// <exception cref="IOException">One cannot be opened, or cannot be served so.</exception>
    public void Open(List<Disk> disks, List<NvmeNamespace> namespaces)
    {
        if (FilePath is not null)
        {
            Add(disks, namespaces, $"--blk-file={FilePath}", () => OpenFile(FilePath, IsReadOnly), BlockSize, false);
        }
        else if (MemorySizeBytes is { } memory)
        {
            Add(disks, namespaces, $"--memory-size={memory}", () => new MemoryDisk(memory), BlockSize, false);
        }
        else if (NullSizeBytes is { } nothing)
        {
            Add(disks, namespaces, $"--null-size={nothing}", () => new NullDisk(nothing), BlockSize, false);
        }

        foreach (string text in Namespaces)
        {
            (string path, bool readOnly, int blockSize) = Split(text);
            readOnly |= IsReadOnly;
            Add(disks, namespaces, $"--namespace={path}", () => OpenFile(path, readOnly), blockSize, readOnly);
        }
    }

    /// <summary>Makes the controller.</summary>
    public NvmeController CreateController(IReadOnlyList<NvmeNamespace> namespaces, ILogger log)
    {
        NvmeOptions defaults = new();
        return new NvmeController(namespaces, defaults with
        {
            Serial = Serial ?? MakeSerial(),
            Model = Model ?? defaults.Model,
            QueuePairs = QueuePairs ?? defaults.QueuePairs,
            QueueSize = QueueSize ?? defaults.QueueSize,
            WorkerCount = Threads.Count,
            Worker = Threads.Apply(new QueueWorkerOptions { FileEngine = FileEngine }),
            WriteCache = HasWriteCache,
            HasMsix = HasMsix,
            ShadowDoorbells = HasShadowDoorbells,
            Logger = log,
        });
    }

    private void Add(
        List<Disk> disks, List<NvmeNamespace> namespaces, string name, Func<Disk> open, int blockSize, bool readOnly)
    {
        try
        {
            Disk disk = open();
            disks.Add(disk);
            namespaces.Add(new NvmeNamespace(disk, blockSize, readOnly || IsReadOnly));
        }
        catch (Exception error) when (error is LinuxException or OutOfMemoryException or ArgumentException)
        {
            throw new IOException($"{name}: {error.Message}", error);
        }
    }

    private FileDisk OpenFile(string path, bool readOnly) =>
        FileDisk.Open(path, readOnly, IsDirect, !IsUnlocked, IsIncoming);

    /// <summary>
    /// A serial number of one's own: two controllers of a guest must differ, and one that is started again must not.
    /// </summary>
    private string MakeSerial()
    {
        string? path = FilePath ?? (Namespaces.Count > 0 ? Split(Namespaces[0]).Path : null);
        string place = path is null ? SocketPath : path;
        byte[] hash = SHA256.HashData(Encoding.UTF8.GetBytes(Path.GetFullPath(place)));
        return $"OB{Convert.ToHexString(hash)[..14]}";
    }

    private (string Path, bool IsReadOnly, int BlockSize) Split(string text)
    {
        string[] parts = text.Split(',');
        bool readOnly = false;
        int blockSize = BlockSize;
        foreach (string part in parts[1..])
        {
            switch (part)
            {
                case "read-only":
                    readOnly = true;
                    break;
                case "block-size=512" or "block-size=4096":
                    blockSize = part.EndsWith("512", StringComparison.Ordinal) ? 512 : 4096;
                    break;
                default:
                    throw new CommandLineException(
                        $"--namespace={text}: give a path, and after commas read-only, block-size=512 or "
                        + "block-size=4096");
            }
        }

        return parts[0].Length > 0
            ? (parts[0], readOnly, blockSize)
            : throw new CommandLineException($"--namespace={text}: give a path");
    }

    private static void CheckText(string option, string? text, int mostBytes)
    {
        if (text is not null && (!Ascii.IsValid(text) || text.Length > mostBytes || text.Any(char.IsControl)))
        {
            throw new CommandLineException($"{option}={text}: give at most {mostBytes} ASCII characters");
        }
    }
}

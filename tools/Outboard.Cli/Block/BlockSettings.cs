// What "outboard block" was asked for, checked as far as the command line alone can be; and the disk and the device
// that follow from it.
using System.Text;
using Microsoft.Extensions.Logging;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Linux.Files;

namespace Outboard.Cli.Block;

/// <summary>The settings of the block back-end. Null means that nothing was said.</summary>
internal sealed record BlockSettings
{
    /// <summary>Length of a serial number (VIRTIO_BLK_ID_BYTES).</summary>
    private const int SerialBytes = 20;

    private const string StorageRemedy = "give one of --blk-file=PATH, --memory-size=SIZE and --null-size=SIZE";

    public string? SocketPath { get; init; }

    /// <summary>Where a front-end listens.</summary>
    public string? PeerPath { get; init; }

    public string? VfioUserPath { get; init; }

    public bool HasSplitRingsOnly { get; init; }

    public int? DescriptorNumber { get; init; }

    public string? FilePath { get; init; }

    public long? MemorySizeBytes { get; init; }

    public long? NullSizeBytes { get; init; }

    public bool IsReadOnly { get; init; }

    public bool IsDirect { get; init; }

    public bool IsIncoming { get; init; }

    public bool IsUnlocked { get; init; }

    public string Serial { get; init; } = string.Empty;

    public int? BlockSize { get; init; }

    public bool HasWriteCache { get; init; } = true;

    public int QueueCount { get; init; } = 1;

    public int? QueueSize { get; init; }

    public int ThreadCount { get; init; }

    public TimeSpan? MaxPolling { get; init; }

    public FileIoEngineKind FileEngine { get; init; } = FileIoEngineKind.Automatic;

    public bool WatchesSize { get; init; }

    public FaultPlan? Faults { get; init; }

    public bool IsInOrder { get; init; }

    public bool OffersInbandNotifications { get; init; }

    public LogLevel LogLevel { get; init; } = LogLevel.Information;

    /// <summary>Checks what belongs together.</summary>
    /// <exception cref="CommandLineException">It does not fit.</exception>
    public void Check()
    {
        string[] storages =
        [
            .. FilePath is null ? (string[])[] : [$"--blk-file={FilePath}"],
            .. MemorySizeBytes is null ? (string[])[] : [$"--memory-size={MemorySizeBytes}"],
            .. NullSizeBytes is null ? (string[])[] : [$"--null-size={NullSizeBytes}"],
        ];
        if (storages.Length == 0)
        {
            throw new CommandLineException($"no storage: {StorageRemedy}");
        }

        if (storages.Length > 1)
        {
            throw new CommandLineException($"{string.Join(" and ", storages)} exclude each other: {StorageRemedy}");
        }

        if (IsDirect && FilePath is null)
        {
            throw new CommandLineException("--direct: there is no file; leave it out, or give --blk-file=PATH");
        }

        if ((IsIncoming || IsUnlocked) && FilePath is null)
        {
            string option = IsIncoming ? "--incoming" : "--no-lock";
            throw new CommandLineException($"{option}: there is no file; leave it out, or give --blk-file=PATH");
        }

        if (WatchesSize && FilePath is null)
        {
            throw new CommandLineException("--watch-size: there is no file; leave it out, or give --blk-file=PATH");
        }

        if (!Ascii.IsValid(Serial) || Serial.Length > SerialBytes)
        {
            throw new CommandLineException($"--serial={Serial}: give at most {SerialBytes} ASCII characters");
        }
    }

    /// <summary>Opens the disk.</summary>
    /// <exception cref="IOException">It cannot be opened, or cannot be served so.</exception>
    public Disk OpenDisk()
    {
        Disk disk = OpenStorage();
        try
        {
            int blockSize = Math.Max(BlockSize ?? 0, disk.BlockSize);
            return disk.SizeBytes % blockSize == 0
                ? disk
                : throw new IOException(
                    $"{StorageName()}: {disk.SizeBytes} bytes are no multiple of the block size {blockSize}: "
                    + "resize it, or give another --block-size");
        }
        catch
        {
            disk.Dispose();
            throw;
        }
    }

    /// <summary>Makes the device.</summary>
    public BlockDevice CreateDevice(Disk disk)
    {
        BlockDeviceOptions defaults = new();
        return new BlockDevice(disk, defaults with
        {
            ReadOnly = IsReadOnly,
            Serial = Serial,
            QueueCount = QueueCount,
            QueueSize = QueueSize ?? defaults.QueueSize,
            BlockSize = BlockSize ?? defaults.BlockSize,
            WriteCache = HasWriteCache,
        });
    }

    private string StorageName() => FilePath is not null
        ? $"--blk-file={FilePath}"
        : MemorySizeBytes is not null ? $"--memory-size={MemorySizeBytes}" : $"--null-size={NullSizeBytes}";

    private Disk OpenStorage()
    {
        try
        {
            Disk disk = FilePath is not null
                ? FileDisk.Open(FilePath, IsReadOnly, IsDirect, !IsUnlocked, IsIncoming)
                : MemorySizeBytes is { } size ? new MemoryDisk(size) : new NullDisk(NullSizeBytes!.Value);
            return Faults is null ? disk : new FaultyDisk(disk, Faults);
        }
        catch (LinuxException error)
        {
            throw new IOException($"{StorageName()}: {error.Message}", error);
        }
        catch (Exception error) when (error is OutOfMemoryException or ArgumentException)
        {
            throw new IOException($"{StorageName()}: {error.Message}", error);
        }
    }
}

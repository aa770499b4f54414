// A namespace: a disk, cut into logical blocks of 512 or 4096 bytes. Several namespaces of a controller are several
// disks. Not here: metadata and protection information, formatting, namespace management.
using System.Numerics;
using System.Security.Cryptography;
using System.Text;
using Outboard.Devices.Block.Backends;

namespace Outboard.Devices.Nvme;

/// <summary>A namespace of an NVMe controller, on a disk that stays the caller's to dispose.</summary>
public sealed class NvmeNamespace
{
    private long _blocks;

    /// <summary>Makes a namespace.</summary>
    /// <param name="disk">What it stores its blocks in.</param>
    /// <param name="blockSize">Bytes of a logical block, 512 or 4096; 0 for what the disk needs.</param>
    /// <param name="readOnly">Refuse writes, also where the disk would take them.</param>
    /// <exception cref="ArgumentException">The block size does not suit the disk.</exception>
    public NvmeNamespace(Disk disk, int blockSize = 0, bool readOnly = false)
    {
        ArgumentNullException.ThrowIfNull(disk);
        blockSize = blockSize == 0 ? (disk.BlockSize <= 512 ? 512 : 4096) : blockSize;
        if (blockSize is not (512 or 4096) || blockSize < disk.BlockSize || disk.SizeBytes < blockSize)
        {
            throw new ArgumentException(
                $"block size {blockSize}: it must be 512 or 4096, at least the disk's {disk.BlockSize}, and the disk " +
                $"({disk.SizeBytes} bytes) must have a block of it");
        }

        Disk = disk;
        BlockSize = blockSize;
        BlockShift = BitOperations.Log2((uint)blockSize);
        IsReadOnly = readOnly || disk.IsReadOnly;
        _blocks = disk.SizeBytes >> BlockShift;
    }

    /// <summary>Bytes of a logical block.</summary>
    public int BlockSize { get; }

    /// <summary>Whether writes are refused.</summary>
    public bool IsReadOnly { get; }

    /// <summary>Logical blocks. May change by <see cref="NvmeController.RefreshSizes"/>.</summary>
    public long BlockCount => Volatile.Read(ref _blocks);

    internal Disk Disk { get; }

    internal int BlockShift { get; }

    /// <summary>Checks a range of blocks.</summary>
    internal bool IsInRange(ulong first, ulong count)
    {
        ulong blocks = (ulong)BlockCount;
        return first <= blocks && count <= blocks - first;
    }

    /// <returns>Whether the size changed.</returns>
    internal bool RefreshSize()
    {
        long blocks = Disk.RefreshSize() >> BlockShift;
        return Interlocked.Exchange(ref _blocks, blocks) != blocks;
    }

    /// <summary>
    /// An identity of 16 bytes that stays the same for the same controller and namespace, marked as a UUID of the kind
    /// that its maker computes as it likes.
    /// </summary>
    internal static byte[] Uuid(string controller, uint number)
    {
        byte[] hash = SHA256.HashData(Encoding.UTF8.GetBytes($"outboard-nvme/{controller}/{number}"))[..16];
        hash[6] = (byte)((hash[6] & 0x0f) | 0x80);
        hash[8] = (byte)((hash[8] & 0x3f) | 0x80);
        return hash;
    }
}

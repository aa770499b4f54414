// What a virtio-blk device answers, as the driver sees it.
namespace Outboard.Devices.Block.Driver;

/// <summary>The outcome of a block request.</summary>
public enum BlockStatus : byte
{
    /// <summary>VIRTIO_BLK_S_OK.</summary>
    Ok = 0,

    /// <summary>VIRTIO_BLK_S_IOERR.</summary>
    IoError = 1,

    /// <summary>VIRTIO_BLK_S_UNSUPP.</summary>
    Unsupported = 2,

    /// <summary>The device returned the request without writing a status.</summary>
    NotWritten = 0xFF,
}

/// <summary>A finished request.</summary>
/// <param name="Slot">The request's slot; it may be used again.</param>
/// <param name="Status">The outcome.</param>
/// <param name="WrittenBytes">Bytes that the device says it wrote, the status included.</param>
public readonly record struct BlockCompletion(int Slot, BlockStatus Status, uint WrittenBytes);

/// <summary>A request of the synchronous methods that failed.</summary>
public sealed class BlockRequestException(BlockStatus status, string message) : IOException(message)
{
    /// <summary>What the device answered.</summary>
    public BlockStatus Status { get; } = status;
}

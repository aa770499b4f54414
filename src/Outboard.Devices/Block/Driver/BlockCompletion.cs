// What a driver gets back.
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block.Driver;

/// <summary>A finished request.</summary>
/// <param name="Slot">The request's slot; it may be used again.</param>
/// <param name="Status">The outcome; <see cref="BlockDriver.NotWritten"/> when the device wrote none.</param>
/// <param name="WrittenBytes">Bytes that the device says it wrote, the status included.</param>
public readonly record struct BlockCompletion(int Slot, BlockStatus Status, uint WrittenBytes);

/// <summary>A request of the synchronous methods that failed.</summary>
public sealed class BlockRequestException(BlockStatus status, string message) : IOException(message)
{
    /// <summary>What the device answered.</summary>
    public BlockStatus Status { get; } = status;
}

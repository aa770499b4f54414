// What a block device carries over to another host: the mode of the write cache, which the driver chose, and what makes
// sure that the disk there is the same.
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Block;

public sealed partial class BlockDevice
{
    private const string CapacityRecord = "size";
    private const string BlockSizeRecord = "blck";
    private const string WriteBackRecord = "wce ";

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer)
    {
        writer.Write(CapacityRecord, Config.Get(BlockConfig.Capacity));
        writer.Write(BlockSizeRecord, (ulong)BlockSize);
        writer.Write(WriteBackRecord, Config.Get(BlockConfig.WriteBack));
    }

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        ulong capacity = reader.ReadNumber(CapacityRecord);
        ulong here = (ulong)(_disk.RefreshSize() / BlockSize * BlockSize) / BlockConfig.SectorBytes;
        if (capacity != here)
        {
            throw new DeviceStateException($"the driver's disk has {capacity} sectors, this one {here}");
        }

        ulong blockSize = reader.ReadNumber(BlockSizeRecord);
        if (blockSize != (ulong)BlockSize)
        {
            throw new DeviceStateException($"the driver's disk has blocks of {blockSize} bytes, this one {BlockSize}");
        }

        ulong writeBack = reader.ReadNumber(WriteBackRecord, largest: 1);
        return () =>
        {
            SetCapacity(SizeBytes);
            Config.Set(BlockConfig.WriteBack, writeBack);
            UpdateWriteBack();
        };
    }
}

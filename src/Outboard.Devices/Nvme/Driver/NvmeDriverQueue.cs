// A pair of I/O queues in a driver's hands. Nothing is allocated for a command.
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Devices.Nvme.Driver;

/// <summary>A finished command.</summary>
/// <param name="Id">The identifier that it was given.</param>
/// <param name="Status">Status code and type; 0 for success.</param>
public readonly record struct NvmeFinished(ushort Id, int Status);

/// <summary>Drives one pair of I/O queues. One thread uses it.</summary>
public sealed class NvmeDriverQueue
{
    private const uint PageBytes = 4096;

    internal NvmeDriverQueue(NvmeRings rings, EventFd? completed)
    {
        Rings = rings;
        Completed = completed;
    }

    /// <summary>Signalled when commands have finished; null without interrupts. It stays the driver's.</summary>
    public EventFd? Completed { get; }

    /// <summary>Doorbells that were messages so far.</summary>
    public long DoorbellMessages => Rings.Messages;

    internal NvmeRings Rings { get; }

    /// <summary>Adds a read of whole blocks, into pages that follow each other; up to two pages.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryRead(ushort id, uint number, ulong block, uint blocks, DriverBuffer data) =>
        TryMove(NvmeIoOpcode.Read, id, number, block, blocks, data);

    /// <summary>Adds a write; as <see cref="TryRead"/>.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryWrite(ushort id, uint number, ulong block, uint blocks, DriverBuffer data) =>
        TryMove(NvmeIoOpcode.Write, id, number, block, blocks, data);

    /// <summary>Adds a flush.</summary>
    /// <returns>False when the ring is full.</returns>
    public bool TryFlush(ushort id, uint number) =>
        TryAdd(new NvmeCommand { Opcode = (byte)NvmeIoOpcode.Flush, Id = id, Namespace = number });

    /// <summary>Shows the device what was added.</summary>
    public void Submit() => Rings.Ring();

    /// <summary>Takes finished commands.</summary>
    /// <returns>How many were written to <paramref name="finished"/>.</returns>
    public int Collect(Span<NvmeFinished> finished)
    {
        int count = 0;
        while (count < finished.Length && Rings.TryTake(out NvmeCompletion completion))
        {
            finished[count++] = new NvmeFinished(completion.Id, (int)completion.Status);
        }

        if (count > 0)
        {
            Rings.Release();
        }

        return count;
    }

    internal bool TryAdd(in NvmeCommand command) => Rings.TryAdd(in command);

    private bool TryMove(
        NvmeIoOpcode opcode, ushort id, uint number, ulong block, uint blocks, DriverBuffer data)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(data.Length, 2 * PageBytes, nameof(data));
        ulong second = (data.GuestAddress & ~(ulong)(PageBytes - 1)) + PageBytes;
        return TryAdd(new NvmeCommand
        {
            Opcode = (byte)opcode,
            Id = id,
            Namespace = number,
            Pointer1 = data.GuestAddress,
            Pointer2 = second < data.GuestAddress + data.Length ? second : 0,
            Word10 = (uint)block,
            Word11 = (uint)(block >> 32),
            Word12 = blocks - 1,
        });
    }
}

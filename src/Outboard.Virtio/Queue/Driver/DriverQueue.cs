// The driver's side of a virtqueue: what split and packed rings have in common.
//
//   TryAdd -> ... -> Publish -> a kick, if ShouldKick     TryCollect, until it gives nothing -> ArmCalls -> wait
//
// With IN_ORDER descriptors (and buffer ids) are used one after another round the ring, and are free again by counting:
// one used entry may stand for a batch, whose last chain it names. A chain that it skips was written completely.
//
// Not here: VIRTIO_F_NOTIFICATION_DATA.
using System.Runtime.CompilerServices;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

/// <summary>The driver's side of a virtqueue. Used by one thread.</summary>
public abstract class DriverQueue
{
    private readonly uint[]? _writableBytes;

    private protected DriverQueue(int index, int size, DriverMemory memory, ulong features, int indirectEntries)
    {
        Index = index;
        Size = size;
        FreeDescriptors = size;
        IndirectEntries = indirectEntries;
        _writableBytes = (features & VirtioFeatures.InOrder) != 0 ? new uint[size] : null;
        Indirect = new DriverBuffer[indirectEntries > 0 ? size : 0];
        for (int i = 0; i < Indirect.Length; i++)
        {
            Indirect[i] = memory.Allocate((uint)indirectEntries * SplitRing.DescriptorBytes, 16);
        }
    }

    /// <summary>The queue's index in the device.</summary>
    public int Index { get; }

    /// <summary>Descriptors.</summary>
    public int Size { get; }

    /// <summary>Where the ring lies.</summary>
    public VringAddresses Addresses { get; private protected init; }

    /// <summary>
    /// Where a device begins that serves the ring for the first time, see <see cref="VringSetup.Base"/>.
    /// </summary>
    public abstract uint InitialBase { get; }

    /// <summary>
    /// Where a device goes on that has the in-flight record of one before it: at the used side, see
    /// <see cref="VringSetup.Base"/>.
    /// </summary>
    public abstract uint UsedBase { get; }

    /// <summary>Descriptors that are free.</summary>
    public int FreeDescriptors { get; private protected set; }

    /// <summary>Chains made available and not collected.</summary>
    public int InFlight { get; private protected set; }

    /// <summary>An indirect table for each chain; empty when none are used.</summary>
    private protected DriverBuffer[] Indirect { get; }

    /// <summary>Whether the device returns chains in the order in which they were made available.</summary>
    private protected bool IsInOrder => _writableBytes is not null;

    /// <summary>Entries of each indirect table.</summary>
    private protected int IndirectEntries { get; }

    /// <summary>Lays a queue out in driver memory, in the format that was negotiated.</summary>
    /// <param name="index">The queue's index in the device.</param>
    /// <param name="size">Descriptors, up to 32768; a power of two for a split ring.</param>
    /// <param name="memory">Where the ring (and indirect tables) are allocated.</param>
    /// <param name="features">Negotiated features; RING_PACKED, EVENT_IDX and IN_ORDER are honoured.</param>
    /// <param name="indirectEntries">
    /// Entries of the indirect table that each chain may use, 0 for none; a longer chain uses descriptors of the queue.
    /// </param>
    public static DriverQueue Create(
        int index, int size, DriverMemory memory, ulong features, int indirectEntries = 0) =>
        (features & VirtioFeatures.RingPacked) != 0
            ? new PackedDriverQueue(index, size, memory, features, indirectEntries)
            : new SplitDriverQueue(index, size, memory, features, indirectEntries);

    /// <summary>Adds a chain; visible to the device after <see cref="Publish"/>.</summary>
    /// <param name="readable">Buffers that the device reads.</param>
    /// <param name="writable">Buffers that the device writes.</param>
    /// <param name="token">Comes back from <see cref="TryCollect"/>.</param>
    /// <returns>False when too few descriptors are free.</returns>
    public abstract bool TryAdd(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable, uint token);

    /// <summary>Makes added chains visible to the device.</summary>
    public abstract void Publish();

    /// <summary>Whether the device wants a kick for what was published since the last time this was asked.</summary>
    public abstract bool ShouldKick();

    /// <summary>Takes the next used chain.</summary>
    /// <param name="token">The chain's token.</param>
    /// <param name="written">Bytes that the device says it wrote.</param>
    /// <returns>False when there is none.</returns>
    /// <exception cref="InvalidDataException">The device returned a chain that it does not hold.</exception>
    public abstract bool TryCollect(out uint token, out uint written);

    /// <summary>Asks the device for a call at the next used chain, before waiting.</summary>
    /// <returns>True when one is there already: do not wait.</returns>
    public abstract bool ArmCalls();

    /// <summary>Tells the device that no call is needed.</summary>
    public abstract void SuppressCalls();

    /// <summary>
    /// Makes every chain in flight available once more, in the order in which they were added, for a device that lost
    /// them. Everything used has been collected; no device serves the ring.
    /// </summary>
    /// <returns>Where the next device begins, see <see cref="VringSetup.Base"/>.</returns>
    public abstract uint ResubmitInFlight();

    /// <summary>With IN_ORDER: notes what the device is taken to have written into a chain that it skips.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private protected void NoteWritable(int chain, ReadOnlySpan<DriverBuffer> writable)
    {
        uint bytes = 0;
        foreach (ref readonly DriverBuffer buffer in writable)
        {
            bytes += buffer.Length;
        }

        _writableBytes![chain] = bytes;
    }

    /// <summary>Bytes of a chain's writable buffers.</summary>
    private protected uint WritableBytes(int chain) => _writableBytes![chain];
}

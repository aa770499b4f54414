// Starting and stopping queues, in the order that every back-end accepts.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>Entries of the indirect table that each chain may use.</summary>
    private const int IndirectEntries = 16;

    /// <summary>Gives the back-end its memory: by slots when it has them, as a table otherwise.</summary>
    public Task ShareMemoryAsync(DriverMemory memory, CancellationToken cancellation = default) =>
        _inPostcopy ? ShareInPostcopyAsync(memory, cancellation)
            : Has(ProtocolFeatures.ConfigureMemSlots) ? AddMemRegAsync(memory, cancellation)
            : SetMemTableAsync([memory], cancellation);

    /// <summary>Makes a queue in <paramref name="memory"/>, which was shared, and starts it.</summary>
    /// <param name="index">The queue's index.</param>
    /// <param name="size">Descriptors: a power of two up to 32768.</param>
    /// <param name="memory">Where the ring is laid out.</param>
    /// <param name="cancellation">Gives up waiting for replies.</param>
    public async Task<FrontendQueue> StartQueueAsync(
        int index, int size, DriverMemory memory, CancellationToken cancellation = default)
    {
        bool indirect = _options.UseIndirect && (Features & VirtioFeatures.IndirectDescriptors) != 0;
        DriverQueue ring = DriverQueue.Create(index, size, memory, Features, indirect ? IndirectEntries : 0);
        FrontendQueue queue = new(ring, memory);
        await ResumeQueueAsync(queue, ring.InitialBase, cancellation).ConfigureAwait(false);
        return queue;
    }

    /// <summary>Starts a queue that exists, at this or at another back-end than before.</summary>
    /// <param name="queue">The queue.</param>
    /// <param name="ringBase">Where the device goes on, as <see cref="StopQueueAsync"/> told.</param>
    /// <param name="cancellation">Gives up waiting for replies.</param>
    public async Task ResumeQueueAsync(FrontendQueue queue, uint ringBase, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(queue);
        int index = queue.Ring.Index;
        queue.Doorbell = _doorbells;
        await SetVringNumAsync(index, queue.Ring.Size, cancellation).ConfigureAwait(false);
        await SetVringBaseAsync(index, ringBase, cancellation).ConfigureAwait(false);
        await SetVringAddrAsync(index, queue.Ring.Addresses, queue.Memory, IsLogging, cancellation)
            .ConfigureAwait(false);
        await TranslateUsedRingAsync(queue, cancellation).ConfigureAwait(false);
        await ConnectNotifiersAsync(queue, cancellation).ConfigureAwait(false);
        if ((Features & VirtioFeatures.ProtocolFeatures) != 0)
        {
            await SetVringEnableAsync(index, true, cancellation).ConfigureAwait(false);
        }

        State.NoteRing(index, ring => ring with { IsStarted = true, IsDisabled = false });

        // Requests of before may be in the ring already; their kick went to an earlier back-end.
        queue.SignalKick();
    }

    /// <summary>Stops a queue; everything in flight is completed when this returns.</summary>
    /// <returns>Where the device stands, see <see cref="VringSetup.Base"/>.</returns>
    public async Task<uint> StopQueueAsync(FrontendQueue queue, CancellationToken cancellation = default)
    {
        await DisableAsync(queue, cancellation).ConfigureAwait(false);
        return await GetVringBaseAsync(queue.Ring.Index, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// Stops a queue without waiting: requests in flight stay in the in-flight region, and are submitted again where
    /// the queue is resumed with it. The back-end touches no memory any more when this returns.
    /// </summary>
    /// <returns>Where the device stands, see <see cref="VringSetup.Base"/>.</returns>
    /// <exception cref="InvalidOperationException">GET_VRING_BASE_SKIP_DRAIN was not negotiated.</exception>
    public async Task<uint> SuspendQueueAsync(FrontendQueue queue, CancellationToken cancellation = default)
    {
        if (!Has(ProtocolFeatures.GetVringBaseSkipDrain))
        {
            throw new InvalidOperationException("GET_VRING_BASE_SKIP_DRAIN was not negotiated");
        }

        await DisableAsync(queue, cancellation).ConfigureAwait(false);
        return await GetVringBaseSkipDrainAsync(queue.Ring.Index, cancellation).ConfigureAwait(false);
    }

    private async Task DisableAsync(FrontendQueue queue, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if ((Features & VirtioFeatures.ProtocolFeatures) != 0)
        {
            await SetVringEnableAsync(queue.Ring.Index, false, cancellation).ConfigureAwait(false);
        }
    }
}

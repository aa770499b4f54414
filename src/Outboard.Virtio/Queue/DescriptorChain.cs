// A request as a device sees it: borrowed for the call (DescriptorChain), or kept for later (PendingRequest).
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.Virtio.Queue;

/// <summary>A chain that was taken from a queue, borrowed until the handler returns.</summary>
public readonly ref struct DescriptorChain
{
    private readonly Virtqueue _queue;
    private readonly int _slot;

    internal DescriptorChain(Virtqueue queue, int slot)
    {
        _queue = queue;
        _slot = slot;
    }

    /// <summary>The chain's slot: unique among the chains in flight on its queue, 0 to queue size - 1.</summary>
    public int Slot => _slot;

    /// <summary>The device-readable buffers.</summary>
    public ReadableBuffers Readable => new(_queue.ReadableSegments(_slot));

    /// <summary>The device-writable buffers.</summary>
    public WritableBuffers Writable => new(_queue.WritableSegments(_slot));

    /// <summary>Copies a header off the front of the readable buffers, however they are cut; the rest stays.</summary>
    /// <returns>False when the readable buffers are shorter.</returns>
    public bool TryTakeHeader<T>(out T header)
        where T : unmanaged => _queue.TryTakeHeader(_slot, out header);

    /// <summary>
    /// Cuts the last <paramref name="bytes"/> bytes off the writable buffers, for a status that is written at the end.
    /// </summary>
    /// <returns>False when they are missing, lie in more than one buffer, or were cut off before.</returns>
    public bool TryTakeTrailer(int bytes, out IoSegment trailer) => _queue.TryCutTrailer(_slot, bytes, out trailer);

    /// <summary>Keeps the request beyond the call: it is to be completed later, exactly once.</summary>
    public PendingRequest Detach() => new(_queue, _slot, _queue.Detach(_slot));

    /// <summary>
    /// Returns the chain to the driver. For queue handlers; a device that returns a length does not call this.
    /// </summary>
    /// <param name="written">
    /// Bytes written into the writable buffers, from their start. While a migration runs, these and a trailer are what
    /// is copied again: count also what may have been written by an operation that failed.
    /// </param>
    public void Complete(uint written) => _queue.Complete(_slot, _queue.Generation(_slot), written);
}

/// <summary>A request that is completed later. Copies stand for the same request.</summary>
public readonly struct PendingRequest
{
    private readonly Virtqueue _queue;
    private readonly int _slot;
    private readonly uint _generation;

    internal PendingRequest(Virtqueue queue, int slot, uint generation)
    {
        _queue = queue;
        _slot = slot;
        _generation = generation;
    }

    /// <summary>The request's slot, see <see cref="DescriptorChain.Slot"/>.</summary>
    public int Slot => _slot;

    internal uint Generation => _generation;

    /// <summary>The device-readable buffers; on the queue's thread, until completion.</summary>
    /// <exception cref="InvariantException">The request was completed.</exception>
    public ReadableBuffers Readable
    {
        get
        {
            _queue.CheckHeld(_slot, _generation);
            return new ReadableBuffers(_queue.ReadableSegments(_slot));
        }
    }

    /// <summary>The device-writable buffers; on the queue's thread, until completion.</summary>
    /// <exception cref="InvariantException">The request was completed.</exception>
    public WritableBuffers Writable
    {
        get
        {
            _queue.CheckHeld(_slot, _generation);
            return new WritableBuffers(_queue.WritableSegments(_slot));
        }
    }

    /// <summary>
    /// Copies a header off the front of the readable buffers, see <see cref="DescriptorChain.TryTakeHeader"/>; on the
    /// queue's thread, until completion.
    /// </summary>
    /// <returns>False when the readable buffers are shorter.</returns>
    /// <exception cref="InvariantException">The request was completed.</exception>
    public bool TryTakeHeader<T>(out T header)
        where T : unmanaged
    {
        _queue.CheckHeld(_slot, _generation);
        return _queue.TryTakeHeader(_slot, out header);
    }

    /// <summary>Returns the request to the driver, from any thread; exactly once.</summary>
    /// <param name="written">Bytes written into the writable buffers, from their start.</param>
    /// <exception cref="InvariantException">The request was completed before (thrown on the queue's thread).
    /// </exception>
    public void Complete(uint written) => _queue.Complete(_slot, _generation, written);

    /// <summary>
    /// Gives the request up, so that its queue can stop; it must not be used again. On the queue's thread, when the
    /// queue is stopping (<see cref="VirtioDevice.OnQueueStopping"/>, <see cref="QueueHandler.Quiesce"/>).
    /// </summary>
    /// <remarks>
    /// It goes back into the ring, for whoever serves that next, if every request taken after it goes back, too. One
    /// that was overtaken by another one cannot go back: after a stop that leaves requests behind it stays recorded in
    /// the in-flight region, after one that does not it is returned with no bytes written. A device that owes the
    /// driver another answer completes the request instead.
    /// </remarks>
    /// <exception cref="InvariantException">The request was completed or given up before.</exception>
    public void LetGo() => _queue.LetGo(_slot, _generation);
}

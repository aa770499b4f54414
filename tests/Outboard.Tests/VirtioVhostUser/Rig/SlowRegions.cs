// Shared memory regions whose first mapping takes as long as a test wants, as another machine's may.
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.Tests.VirtioVhostUser;

/// <summary>Hands everything on; the first mapping only when told to.</summary>
internal sealed class SlowRegions(SharedRegionHost inner) : SharedRegionHost
{
    private readonly TaskCompletionSource _begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _goes = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The first mapping is asked for.</summary>
    public Task Begun => _begun.Task;

    /// <summary>Lets it be done.</summary>
    public void GoOn() => _goes.SetResult();

    public override async Task<bool> MapAsync(
        SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
    {
        _begun.TrySetResult();
        await _goes.Task;
        return await inner.MapAsync(part, memory, memoryOffset, writable);
    }

    public override Task<bool> UnmapAsync(SharedRegionPart part) => inner.UnmapAsync(part);

    public override Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset) =>
        inner.OfferDoorbellAsync(queue, page, offset);
}

// Shared memory regions that take as long as a test wants, as another machine's may.
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

#pragma warning disable CA1001 // Semaphores that nobody takes a wait handle of hold nothing.
/// <summary>Hands everything on; some only when told to, each by itself.</summary>
/// <param name="inner">The regions.</param>
/// <param name="mappings">How many mappings wait, from the first one on.</param>
/// <param name="unmappings">Likewise.</param>
internal sealed class SlowRegions(SharedRegionHost inner, int mappings = 0, int unmappings = 0) : SharedRegionHost
{
    private readonly SemaphoreSlim _begun = new(0);
    private readonly SemaphoreSlim _goes = new(0);
    private int _mappings = mappings;
    private int _unmappings = unmappings;

    /// <summary>Waits until the next of those is asked for.</summary>
    public async Task BegunAsync() =>
        Assert.True(await _begun.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken), "it is asked");

    /// <summary>Lets one of them be done.</summary>
    public void GoOn() => _goes.Release();

    public override async Task<bool> MapAsync(
        SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
    {
        await WaitAsync(ref _mappings);
        return await inner.MapAsync(part, memory, memoryOffset, writable);
    }

    public override async Task<bool> UnmapAsync(SharedRegionPart part)
    {
        await WaitAsync(ref _unmappings);
        return await inner.UnmapAsync(part);
    }

    public override Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset) =>
        inner.OfferDoorbellAsync(queue, page, offset);

    private Task WaitAsync(ref int left)
    {
        if (Interlocked.Decrement(ref left) < 0)
        {
            return Task.CompletedTask;
        }

        _begun.Release();
        return _goes.WaitAsync();
    }
}

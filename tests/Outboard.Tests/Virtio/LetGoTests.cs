// A device that waits for an event from outside holds up neither the stop of its queue nor a change of its memory: it
// is told, and lets its requests go.
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class LetGoTests : IAsyncDisposable
{
    private const ulong Split = VirtioFeatures.Version1;
    private const ulong Packed = VirtioFeatures.Version1 | VirtioFeatures.RingPacked;

    private readonly QueueWorker _worker = new("test");

    public ValueTask DisposeAsync() => _worker.DisposeAsync();

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task What_was_let_go_is_back_in_the_ring(ulong features)
    {
        PatientDevice device = new();
        ServedRing ring = await StartHoldingAsync(device, features, 4);

        // The oldest was answered; it is not let go.
        device.Complete(0);
        Assert.Equal(0u, ring.Collect());
        uint where = await Soon(ring.StopAsync());
        Assert.False(ring.Driver.TryCollect(out _, out _));
        Assert.Equal(features == Split ? 1u : 0x8002_8002u, where);
        await ring.DisposeAsync();
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task What_was_overtaken_comes_back_empty(ulong features)
    {
        PatientDevice device = new();
        ServedRing ring = await StartHoldingAsync(device, features, 4);
        device.Complete(2);
        Assert.Equal(2u, ring.Collect());
        uint where = await Soon(ring.StopAsync());

        // The last one is back; the two that were overtaken cannot be.
        Assert.Equal(features == Split ? 3u : 0x8006_8006u, where);
        List<uint> tokens = [ring.Collect(out uint first), ring.Collect(out uint second)];
        Assert.Equal([0u, 1u], tokens.Order());
        Assert.Equal((0u, 0u), (first, second));
        Assert.False(ring.Driver.TryCollect(out _, out _));
        await ring.DisposeAsync();
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task Change_of_memory_does_not_wait_and_the_requests_come_again(ulong features)
    {
        PatientDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker, features: features);
        ring.Submit(1);
        ring.Submit(2);
        await device.HoldsAsync(2);
        Assert.True(await Soon(ring.Queue.AdoptAsync(ring.Memory.Memory, keepsOldRegions: false)));
        await device.HoldsAsync(2);
        device.Complete(1);
        device.Complete(0);
        Assert.Equal(2u, ring.Collect());
        Assert.Equal(1u, ring.Collect());
    }

    [Fact]
    public async Task Device_that_completes_instead_is_as_good()
    {
        PatientDevice device = new() { Completes = true };
        ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit(7);
        await device.HoldsAsync(1);
        Assert.Equal(1u, await Soon(ring.StopAsync()));
        Assert.Equal(7u, ring.Collect(out uint written));
        Assert.Equal(3u, written);
        await ring.DisposeAsync();
    }

    [Fact]
    public async Task Request_is_let_go_once()
    {
        PatientDevice device = new() { LetsGoTwice = true };
        ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit();
        await device.HoldsAsync(1);
        await Soon(ring.StopAsync());
        Assert.IsType<InvariantException>(ring.TakeFailure());
        await ring.DisposeAsync();
    }

    [Fact]
    public async Task Discarded_queue_waits_for_no_request()
    {
        HoldDevice device = new();
        ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit();
        PendingRequest held = device.Take();
        await Soon(ring.Queue.StopAsync(QueueStop.Discard));

        // On a foreign thread: nobody is disturbed, and nothing is completed.
        held.Complete(0);
        Assert.False(ring.Driver.TryCollect(out _, out _));
    }

    /// <summary>A ring with so many requests, numbered from 0 on, that its device holds.</summary>
    private async Task<ServedRing> StartHoldingAsync(PatientDevice device, ulong features, uint requests)
    {
        ServedRing ring = await ServedRing.StartAsync(device, _worker, features: features);
        for (uint i = 0; i < requests; i++)
        {
            ring.Submit(i);
        }

        await device.HoldsAsync((int)requests);
        return ring;
    }

    private static Task<T> Soon<T>(Task<T> task) =>
        task.WaitAsync(TimeSpan.FromMilliseconds(ServedRing.PatienceMs), TestContext.Current.CancellationToken);

    /// <summary>Keeps requests until the test completes them or the queue stops.</summary>
    private sealed class PatientDevice() : VirtioDevice(VirtioDeviceId.Console, [256])
    {
        private readonly Lock _lock = new();
        private readonly List<PendingRequest> _held = [];

        internal bool Completes { get; init; }

        internal bool LetsGoTwice { get; init; }

        internal async Task HoldsAsync(int count)
        {
            long limit = Environment.TickCount64 + ServedRing.PatienceMs;
            while (Count() != count)
            {
                Assert.True(Environment.TickCount64 < limit, $"{Count()} requests are held, not {count}");
                await Task.Delay(1, TestContext.Current.CancellationToken);
            }
        }

        internal void Complete(int index)
        {
            lock (_lock)
            {
                _held[index].Complete(0);
                _held.RemoveAt(index);
            }
        }

        protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
        {
            lock (_lock)
            {
                _held.Add(chain.Detach());
            }

            return 0;
        }

        protected internal override void OnQueueStopping(int queue)
        {
            lock (_lock)
            {
                foreach (PendingRequest request in _held)
                {
                    if (Completes)
                    {
                        request.Complete(3);
                        continue;
                    }

                    request.LetGo();
                    if (LetsGoTwice)
                    {
                        request.LetGo();
                    }
                }

                _held.Clear();
            }
        }

        private int Count()
        {
            lock (_lock)
            {
                return _held.Count;
            }
        }
    }
}

// A migration without a virtual machine: two queues on two threads work while the memory they write is copied, again
// and again, from what the log says. In the end the copy must be equal, byte for byte.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class FrontendLoggingTests : BackendTest
{
    private const int Size = 64;
    private const int Pages = 128;
    private const int Passes = 200;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) =>
        options with { WorkerCount = 2 };

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Copy_of_a_busy_device_is_equal_in_the_end(bool isPacked)
    {
        VhostUserFrontendOptions options = new() { UsePacked = isPacked };
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(options);
        DriverMemory memory = Rig.Memory(4 << 20);
        await frontend.ShareMemoryAsync(memory, Token);
        using Load first = await Load.StartAsync(frontend, memory, 0);
        using Load second = await Load.StartAsync(frontend, memory, 1);
        Task load = Task.WhenAll(Task.Run(first.Run, Token), Task.Run(second.Run, Token));

        byte[] copy = new byte[memory.SizeBytes];
        using FrontendLog log = await frontend.StartLoggingAsync([first.Queue, second.Queue], tells: true, Token);
        memory.Memory.Regions[0].Segment.Span.CopyTo(copy);
        long total = 0;
        for (int pass = 0; pass < Passes; pass++)
        {
            Assert.True(log.Marked!.Wait(20_000) > 0, "the back-end tells that it marked pages");
            total += CopyPages(log, memory, copy);
        }

        first.End();
        second.End();
        await load;
        await frontend.StopQueueAsync(first.Queue, Token);
        await frontend.StopQueueAsync(second.Queue, Token);
        total += CopyPages(log, memory, copy);
        await frontend.StopLoggingAsync([first.Queue, second.Queue], Token);
        Assert.True(total > Passes);
        first.AssertCopied(memory, copy, isPacked);
        second.AssertCopied(memory, copy, isPacked);
    }

    [Fact]
    public async Task Logging_that_was_switched_off_marks_nothing_and_may_begin_again()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        DriverMemory memory = Rig.Memory(4 << 20);
        await frontend.ShareMemoryAsync(memory, Token);
        using Load load = await Load.StartAsync(frontend, memory, 0);
        for (int round = 0; round < 3; round++)
        {
            using FrontendLog log = await frontend.StartLoggingAsync([load.Queue], cancellation: Token);
            load.Once();
            Assert.NotEmpty(log.Harvest());
            await frontend.StopLoggingAsync([load.Queue], Token);

            // Until then the ring may have been written to, when its worker went to sleep.
            log.Harvest();
            load.Once();
            Assert.Empty(log.Harvest());
        }

        await frontend.StopQueueAsync(load.Queue, Token);
    }

    [Fact]
    public async Task Back_end_without_a_log_is_told_apart()
    {
        VhostUserFrontendOptions options = new();
        options = options with { ProtocolFeatures = options.ProtocolFeatures & ~ProtocolFeatures.LogShmFd };
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(options);
        ProtocolException refusal =
            await Assert.ThrowsAsync<ProtocolException>(() => frontend.StartLoggingAsync([], cancellation: Token));
        Assert.False(refusal.IsFatal);
    }

    private static int CopyPages(FrontendLog log, DriverMemory memory, byte[] copy)
    {
        IReadOnlyList<ulong> pages = log.Harvest();
        foreach (ulong page in pages)
        {
            ulong address = page * DirtyLog.PageBytes;
            int offset = (int)(address - memory.GuestAddress);
            memory.Memory.Regions[0].Segment.Span.Slice(offset, (int)DirtyLog.PageBytes).CopyTo(copy.AsSpan(offset));
        }

        return pages.Count;
    }

    /// <summary>Echoes with changing content into random places of a queue's own pages.</summary>
    private sealed class Load : IDisposable
    {
        private readonly DriverBuffer _answers;
        private readonly DriverBuffer[] _requests;
        private readonly Random _random = new(1);
        private ulong _counter;
        private volatile bool _ends;

        private Load(FrontendQueue queue, DriverMemory memory)
        {
            Queue = queue;
            _answers = memory.Allocate(Pages * 4096, 4096);
            _requests = [.. Enumerable.Range(0, Size).Select(_ => memory.Allocate(64))];
        }

        internal FrontendQueue Queue { get; }

        internal static async Task<Load> StartAsync(VhostUserFrontend frontend, DriverMemory memory, int index) =>
            new(await frontend.StartQueueAsync(index, Size, memory, Token), memory);

        internal void Run()
        {
            while (!_ends)
            {
                Once();
            }
        }

        internal void End() => _ends = true;

        internal void Once()
        {
            int count = _random.Next(1, Size / 4);
            for (int i = 0; i < count; i++)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(_requests[i].Span, ++_counter << 8);
                uint place = (uint)_random.Next((Pages * 4096) - 64);
                Assert.True(Queue.Ring.TryAdd([_requests[i]], [_answers.Slice(place, 64)], (uint)i));
            }

            Queue.Submit();
            while (count > 0)
            {
                if (Queue.Ring.TryCollect(out _, out uint written))
                {
                    Assert.Equal(64U, written);
                    count--;
                }
                else
                {
                    Queue.WaitForUsed(20_000);
                }
            }
        }

        internal void AssertCopied(DriverMemory memory, byte[] copy, bool isPacked)
        {
            Assert.Equal(_answers.Span, At(memory, copy, _answers.GuestAddress, (int)_answers.Length));
            VringAddressesOf(isPacked, out ulong address, out int length);
            ReadOnlySpan<byte> ring = memory.Memory.Regions[0].Segment.Span.Slice(
                (int)(address - memory.GuestAddress), length);
            Assert.Equal(ring, At(memory, copy, address, length));
        }

        public void Dispose() => Queue.Dispose();

        /// <summary>What only the device writes; a packed ring's descriptors are written by both.</summary>
        private void VringAddressesOf(bool isPacked, out ulong address, out int length)
        {
            address = Queue.Ring.Addresses.Used;
            length = isPacked ? (int)PackedRing.EventBytes : (int)SplitRing.UsedBytes(Size);
        }

        private static ReadOnlySpan<byte> At(DriverMemory memory, byte[] copy, ulong address, int length) =>
            copy.AsSpan((int)(address - memory.GuestAddress), length);
    }
}

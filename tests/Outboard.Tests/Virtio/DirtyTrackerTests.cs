// What a queue marks while a migration runs: guest memory is compared byte by byte before and after every step of the
// device; a page that changed and was not marked is a guest that breaks on its new host.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class DirtyTrackerTests
{
    private const ulong GuestAddress = 0x40_0000;
    private const ulong MemoryBytes = 64 * DirtyLog.PageBytes;

    /// <summary>A page of the log far from guest memory, where the ring's marks go.</summary>
    private const ulong RingAddress = 0x100_0000;

    private const ulong Version1 = VirtioFeatures.Version1;
    private const ulong Packed = VirtioFeatures.Version1 | VirtioFeatures.RingPacked;

    [Theory]
    [InlineData(8, Version1)]
    [InlineData(256, Version1 | VirtioFeatures.EventIndex)]
    [InlineData(512, Version1 | VirtioFeatures.IndirectDescriptors)]
    [InlineData(7, Packed)]
    [InlineData(256, Packed | VirtioFeatures.EventIndex)]
    [InlineData(500, Packed | VirtioFeatures.IndirectDescriptors)]
    [InlineData(64, Version1 | VirtioFeatures.InOrder)]
    [InlineData(48, Packed | VirtioFeatures.InOrder)]
    public void No_page_that_a_device_changed_is_unmarked(int size, ulong features)
    {
        using Rig rig = new(size, features, ringAddress: null);
        using Rig logged = new(size, features, RingAddress);
        Random random = new(size);
        for (int step = 0; step < 1500; step++)
        {
            int seed = random.Next();
            logged.Step(new Random(seed), checksRing: true);
            rig.Step(new Random(seed), checksRing: false);
        }
    }

    [Theory]
    [InlineData(Version1)]
    [InlineData(Packed)]
    public void Only_bytes_that_were_written_are_marked(ulong features)
    {
        using Rig rig = new(16, features, ringAddress: null);
        DriverBuffer buffer = rig.Memory.Allocate(4 * 4096, 4096);
        ulong first = buffer.GuestAddress / DirtyLog.PageBytes;
        Assert.Equal([first, first + 1], rig.Complete([], [buffer], written: 4097));
        Assert.Empty(rig.Complete([], [buffer], written: 0));
        Assert.Empty(rig.Complete([buffer], [], written: 0));
        Assert.Equal(
            [first + 1, first + 3],
            rig.Complete([], [buffer.Slice(4096, 10), buffer.Slice(3 * 4096, 4096)], written: 11).Order());
        Assert.Equal([first], rig.Complete([], [buffer.Slice(0, 10)], written: uint.MaxValue));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4096)]
    public void A_trailer_is_marked_wherever_it_was_cut_off(uint lastBytes)
    {
        using Rig rig = new(16, Version1, ringAddress: null);
        DriverBuffer data = rig.Memory.Allocate(2 * 4096, 4096);
        DriverBuffer last = rig.Memory.Allocate(4096, 4096).Slice(0, lastBytes);
        ulong trailer = (last.GuestAddress + last.Length - 1) / DirtyLog.PageBytes;
        Assert.Equal([trailer], rig.Complete([], [data, last], written: 0, trailerBytes: 1));
    }

    [Theory]
    [InlineData(Version1)]
    [InlineData(Packed)]
    public void The_ring_is_marked_when_logging_begins_and_only_with_its_flag(ulong features)
    {
        using Rig rig = new(16, features, ringAddress: null);
        Assert.Empty(rig.AtStart);
        using Rig logged = new(16, features, RingAddress);
        Assert.Contains(RingAddress / DirtyLog.PageBytes, logged.AtStart);
        Assert.Contains(logged.UsedPage, logged.AtStart);
    }

    [Fact]
    public void Harvesting_side_is_told_once_for_each_publication()
    {
        int told = 0;
        using Rig rig = new(16, Version1, ringAddress: null, () => told++);
        DriverBuffer buffer = rig.Memory.Allocate(64);
        rig.Complete([], [buffer], written: 10);
        Assert.Equal(1, told);
        rig.Complete([buffer], [], written: 0);
        Assert.Equal(1, told);
    }

    private sealed class Rig : IDisposable
    {
        private readonly DirtyLog _log;
        private readonly DriverQueue _driver;
        private readonly Virtqueue _device;
        private readonly DriverBuffer _buffers;
        private readonly byte[] _before = new byte[MemoryBytes];
        private readonly List<PendingRequest> _taken = [];
        private readonly ulong[] _ringPages;
        private uint _token;

        internal Rig(int size, ulong features, ulong? ringAddress, Action? marked = null)
        {
            Memory = new DriverMemory(MemoryBytes, GuestAddress);
            using FileDescriptor file = MemFd.Create("outboard-log-test", DirtyLog.BytesFor(2 * RingAddress));
            _log = new DirtyLog(MemoryMapping.Map(file, 0, DirtyLog.BytesFor(2 * RingAddress)), marked);
            bool indirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
            _driver = DriverQueue.Create(0, size, Memory, features, indirect ? 4 : 0);
            ulong ringEnd = Memory.Allocate(1, 4096).GuestAddress;
            _ringPages = [.. Pages(GuestAddress, ringEnd - GuestAddress)];
            _buffers = Memory.Allocate(16 * 4096, 4096);
            _device = Virtqueue.Create(new VringSetup
            {
                Index = 0,
                Size = size,
                Addresses = _driver.Addresses,
                Base = _driver.InitialBase,
                Features = features,
                Memory = Memory.Memory,
                Log = new QueueLog(_log, ringAddress),
            });
            AtStart = Harvest();
        }

        internal DriverMemory Memory { get; }

        internal List<ulong> AtStart { get; }

        internal ulong UsedPage => _driver.Addresses.Used / DirtyLog.PageBytes;

        /// <summary>One request from beginning to end.</summary>
        /// <returns>The pages that were marked.</returns>
        internal List<ulong> Complete(
            ReadOnlySpan<DriverBuffer> readable,
            ReadOnlySpan<DriverBuffer> writable,
            uint written,
            int trailerBytes = 0)
        {
            Assert.True(_driver.TryAdd(readable, writable, 0));
            _driver.Publish();
            Assert.True(_device.TryTake(out DescriptorChain chain));
            Assert.True(trailerBytes == 0 || chain.TryTakeTrailer(trailerBytes, out _));
            chain.Complete(written);
            _device.Publish();
            Assert.True(_driver.TryCollect(out _, out _));
            return Harvest();
        }

        /// <summary>The driver does something, then the device; pages that changed meanwhile are compared.</summary>
        internal void Step(Random random, bool checksRing)
        {
            for (int i = random.Next(4); i > 0; i--)
            {
                _ = _driver.TryAdd([Buffer(random)], [Buffer(random), Buffer(random)], _token++);
            }

            _driver.Publish();
            Memory.Memory.Regions[0].Segment.Span.CopyTo(_before);
            Act(random);
            HashSet<ulong> marked = [.. Harvest()];
            foreach (ulong page in Pages(GuestAddress, MemoryBytes))
            {
                int offset = (int)((page * DirtyLog.PageBytes) - GuestAddress);
                Span<byte> now = Memory.Memory.Regions[0].Segment.Span.Slice(offset, (int)DirtyLog.PageBytes);
                bool changed = !now.SequenceEqual(_before.AsSpan(offset, (int)DirtyLog.PageBytes));
                bool isRing = _ringPages.Contains(page);
                Assert.True(!changed || marked.Contains(page) || (isRing && !checksRing), $"page {page:x}");
                Assert.True(checksRing || !isRing || !marked.Contains(page), $"page {page:x} of the ring");
            }

            while (_driver.TryCollect(out _, out _))
            {
                // The driver has its buffers back.
            }
        }

        public void Dispose()
        {
            _device.Dispose();
            _log.Dispose();
            Memory.Dispose();
        }

        private void Act(Random random)
        {
            switch (random.Next(6))
            {
                case 0:
                    _device.ArmKicks();
                    break;
                case 1:
                    _device.SuppressKicks();
                    break;
                case 2 when _device.HasUnpublished:
                    _device.Publish();
                    break;
                case 3 or 4:
                    while (_taken.Count > 0 && random.Next(4) != 0)
                    {
                        Answer(random, random.Next(_taken.Count));
                    }

                    break;
                default:
                    while (_device.TryTake(out DescriptorChain chain))
                    {
                        _taken.Add(chain.Detach());
                    }

                    break;
            }
        }

        private void Answer(Random random, int index)
        {
            PendingRequest request = _taken[index];
            _taken.RemoveAt(index);
            byte[] bytes = new byte[random.Next((int)request.Writable.Length + 1)];
            random.NextBytes(bytes);
            request.Writable.CopyFrom(0, bytes);
            request.Complete((uint)bytes.Length);
        }

        private DriverBuffer Buffer(Random random)
        {
            uint start = (uint)random.Next((int)_buffers.Length - 1);
            return _buffers.Slice(start, (uint)random.Next(1, (int)Math.Min(5000, _buffers.Length - start)));
        }

        private List<ulong> Harvest()
        {
            List<ulong> pages = [];
            _log.Harvest(pages);
            return pages;
        }

        private static IEnumerable<ulong> Pages(ulong address, ulong bytes)
        {
            for (ulong page = address / DirtyLog.PageBytes; page * DirtyLog.PageBytes < address + bytes; page++)
            {
                yield return page;
            }
        }
    }
}

// Requests that take effect exactly once: both halves of a split virtqueue with an in-flight region, and a journal.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Chains of one writable descriptor, each counted and told the count, in batches of 32.</summary>
public sealed class CounterBody : BenchmarkBody
{
    private const int Batch = 32;
    private const int Size = 256;

    private readonly DriverMemory _memory = new(1 << 20);
    private readonly DeviceJournal _journal = DeviceJournal.InMemory(new JournalLayout
    {
        Device = VirtioDeviceId.DemoCounter,
        Name = "measured",
        EntryCount = Size,
        ReplyBytes = sizeof(ulong),
    });

    private readonly DriverQueue _driver;
    private readonly Virtqueue _device;
    private readonly CountingQueue _handler;
    private readonly DriverBuffer[] _buffers;

    /// <summary>Makes both halves.</summary>
    public CounterBody()
    {
        const ulong features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex;
        _driver = DriverQueue.Create(0, Size, _memory, features);
        uint bytes = InflightSpec.QueueBytes(isPacked: false, Size);
        _memory.Memory.TryGetWindow(_memory.Allocate(bytes, 64).GuestAddress, bytes, out MemoryWindow region);
        _device = Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = Size,
            Addresses = _driver.Addresses,
            Base = _driver.InitialBase,
            Features = features,
            Memory = _memory.Memory,
            Inflight = region,
        });
        _handler = new CountingQueue(_device, _journal.Lane(0));
        _buffers = [_memory.Allocate(sizeof(ulong))];
    }

    /// <inheritdoc/>
    public override void Run()
    {
        for (int done = 0; done < Operations; done += Batch)
        {
            for (uint i = 0; i < Batch; i++)
            {
                _driver.TryAdd([], _buffers, i);
            }

            _driver.Publish();
            _ = _driver.ShouldKick();
            _ = _handler.Drain(Batch);
            _device.Publish();
            _ = _device.ShouldCall();
            while (_driver.TryCollect(out _, out _))
            {
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _handler.Dispose();
        _device.Dispose();
        _journal.Dispose();
        _memory.Dispose();
        base.Dispose();
    }

    private sealed class CountingQueue(Virtqueue queue, JournalLane lane) : JournaledQueue(queue, lane)
    {
        protected override bool TryHandle(scoped in DescriptorChain chain)
        {
            ulong value = Lane.Read(0) + 1;
            Lane.Write(0, value);
            Span<byte> reply = stackalloc byte[sizeof(ulong)];
            BinaryPrimitives.WriteUInt64LittleEndian(reply, value);
            Lane.Reply(reply);
            return true;
        }
    }
}

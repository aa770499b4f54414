// A device that echoes, and records what it was told.
using System.Collections.Concurrent;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Tests.VhostUser;

/// <summary>Copies a request's readable bytes to its writable ones; or keeps it until the test completes it.</summary>
internal class FakeDevice()
    : VirtioDevice(VirtioDeviceId.Entropy, [64, 64, 16], new ConfigSpace(ConfigBytes, Mode)), INetworkLink
{
    public const int ConfigBytes = 16;
    public const int SmallestQueueSize = 16;
    public const ulong OwnFeatures = 0x21;

    /// <summary>A request that starts with this byte makes the device throw.</summary>
    public const byte Poison = 0xEE;

    public static readonly ConfigField Capacity = new(0, 8);
    public static readonly ConfigField Mode = new(8, 1, IsWritable: true);

    private readonly ConcurrentQueue<PendingRequest> _held = new();
    private int _handled;
    private int _resets;
    private int _configWrites;
    private volatile bool _holds;

    public static readonly SharedRegion[] Regions = [new(1, 0x10000), new(200, 0x4000)];

    public override ulong DeviceFeatures => OwnFeatures;

    public override IReadOnlyList<SharedRegion> SharedRegions => Regions;

    /// <summary>Whether requests are kept until <see cref="CompleteHeld"/>.</summary>
    public bool Holds
    {
        get => _holds;
        set => _holds = value;
    }

    /// <summary>Whether the device throws when a queue is started.</summary>
    public bool ThrowsOnStart { get; set; }

    public int Handled => Volatile.Read(ref _handled);

    public int Held => _held.Count;

    public int Resets => Volatile.Read(ref _resets);

    public int ConfigWrites => Volatile.Read(ref _configWrites);

    /// <summary>Whether the next write to the configuration space makes the device throw.</summary>
    public bool ThrowsOnConfigWrite { get; set; }

    /// <summary>The address that was announced last.</summary>
    public byte[]? Announced { get; private set; }

    /// <summary>The MTU that was set last; it may be 1500 at most.</summary>
    public int Mtu { get; private set; }

    /// <summary>Whether it may be used here.</summary>
    public bool IsTakenOver { get; private set; }

    /// <summary>Whether another host has it.</summary>
    public bool IsElsewhere { get; set; }

    public override Task TakeOverAsync()
    {
        IsTakenOver = !IsElsewhere;
        return IsTakenOver ? Task.CompletedTask : throw new IOException("another host has the device");
    }

    public override void HandOver() => IsTakenOver = false;

    /// <summary>What is carried over by a migration.</summary>
    public byte[] Luggage { get; set; } = [];

    public bool TryAnnounce(ReadOnlySpan<byte> address)
    {
        Announced = (address[0] & 1) == 0 ? address.ToArray() : Announced;
        return (address[0] & 1) == 0;
    }

    public bool TrySetMtu(int mtu)
    {
        Mtu = mtu <= 1500 ? mtu : Mtu;
        return mtu <= 1500;
    }

    /// <summary>Completes the requests that are kept, from the caller's thread.</summary>
    public void CompleteHeld()
    {
        while (_held.TryDequeue(out PendingRequest request))
        {
            request.Complete(0);
        }
    }

    public PendingRequest TakeHeld() => _held.TryDequeue(out PendingRequest request)
        ? request
        : throw new InvalidOperationException("nothing is held");

    public Task MapAsync(SharedRegionPart part, SharedMemory memory, ulong offset = 0, bool writable = true) =>
        MapSharedAsync(part, memory, offset, writable);

    public Task UnmapAsync(SharedRegionPart part) => UnmapSharedAsync(part);

    public Task OfferAsync(int queue, SharedMemory? page, ulong offset = 0) => OfferDoorbellAsync(queue, page, offset);

    public void ChangeCapacity(ulong capacity)
    {
        Config.Set(Capacity, capacity);
        NotifyConfigChanged();
    }

    public override void Reset()
    {
        Interlocked.Increment(ref _resets);
        base.Reset();
    }

    protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        Span<byte> bytes = stackalloc byte[64];
        int count = chain.Readable.CopyTo(0, bytes);
        if (count > 0 && bytes[0] == Poison)
        {
            throw new InvalidOperationException("the device broke");
        }

        Interlocked.Increment(ref _handled);
        if (Holds)
        {
            _held.Enqueue(chain.Detach());
            return 0;
        }

        return (uint)chain.Writable.CopyFrom(0, bytes[..count]);
    }

    protected internal override QueueHandler CreateHandler(QueueContext context) => ThrowsOnStart
        ? throw new InvalidOperationException("the device broke")
        : base.CreateHandler(context);

    protected override void OnSave(DeviceStateWriter writer) => writer.Write("bag ", Luggage);

    protected override Action OnLoad(DeviceStateReader reader) =>
        reader.TryRead("bag ", Luggage.Length, out ReadOnlyMemory<byte> luggage)
            ? () => Luggage = luggage.ToArray()
            : throw new DeviceStateException("no luggage");

    protected override void OnConfigWritten()
    {
        Interlocked.Increment(ref _configWrites);
        if (ThrowsOnConfigWrite)
        {
            throw new InvalidOperationException("the device broke");
        }
    }
}

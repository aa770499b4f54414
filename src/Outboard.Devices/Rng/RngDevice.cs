// The entropy device, virtio-v1.3 "5.4 Entropy Device": one queue of buffers to be filled, no features, no
// configuration. Requests are in RngQueue.
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Rng;

/// <summary>What an operator can choose about an entropy device.</summary>
public sealed record RngDeviceOptions
{
    /// <summary>Most bytes that a guest gets in a second; 0 sets no limit.</summary>
    public long MaxBytesPerSecond { get; init; }

    /// <summary>Largest size of the virtqueue.</summary>
    public int QueueSize { get; init; } = 256;
}

/// <summary>A virtio entropy device.</summary>
public sealed class RngDevice : VirtioDevice
{
    /// <summary>
    /// Most bytes given for one request, however long its buffers: a guest asks for at most a page at a time, and its
    /// queue's thread and the source serve others, too.
    /// </summary>
    public const int MaxRequestBytes = 64 << 10;

    private const string BudgetRecord = "left";

    private readonly EntropySource _source;
    private int _exhausted;

    /// <summary>Makes a device on a source, which stays the caller's to dispose.</summary>
    public RngDevice(EntropySource source, RngDeviceOptions? options = null)
        : this(source, options ?? new RngDeviceOptions(), 0)
    {
    }

    private RngDevice(EntropySource source, RngDeviceOptions options, int _)
        : base(VirtioDeviceId.Entropy, [options.QueueSize])
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentOutOfRangeException.ThrowIfNegative(options.MaxBytesPerSecond);
        _source = source;
        Budget = new ByteBudget(options.MaxBytesPerSecond);
    }

    /// <summary>Raised once, on any thread, when the source ended or failed: with 0 or a negative errno.</summary>
    /// <remarks>Requests stay in the ring from then on: a device must not answer one with no bytes at all.</remarks>
    public event Action<int>? SourceExhausted;

    /// <summary>What may be given now.</summary>
    internal ByteBudget Budget { get; }

    internal void OnExhausted(int result)
    {
        if (Interlocked.Exchange(ref _exhausted, 1) == 0)
        {
            SourceExhausted?.Invoke(result);
        }
    }

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context) =>
        new RngQueue(this, _source, Budget, context);

    /// <inheritdoc/>
    /// <remarks>What is left of the rate: a guest that moves does not get it twice.</remarks>
    protected override void OnSave(DeviceStateWriter writer) =>
        writer.Write(BudgetRecord, (ulong)Math.Max(0, Budget.Left));

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        ulong left = reader.ReadNumber(BudgetRecord);
        return () => Budget.Left = (long)Math.Min(left, long.MaxValue);
    }
}

// Waist 1: what a virtio device is, to any transport. No socket, message, PCI register or eventfd has a name here.
//
// Three levels of writing a device, all from this class:
//   (a) override HandleRequest and return the number of bytes written;
//   (b) call chain.Detach() there, return anything, and complete the PendingRequest later, from any thread;
//   (c) override CreateHandler and own the queue's loop, with asynchronous file I/O if wanted.
// Features that the ring owns (EVENT_IDX, INDIRECT_DESC, VERSION_1 ...) are added by the transport.
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Virtio;

/// <summary>A virtio device.</summary>
/// <remarks>
/// A transport calls the members in this order: features and configuration are read, <see cref="AcceptFeatures"/>,
/// queues are started and stopped (<see cref="StartQueue"/>), <see cref="Reset"/>; then again from the beginning.
/// A device serves one transport at a time. <see cref="HandleRequest"/> runs on the queue's thread, everything else on
/// the transport's control loop, unless it says otherwise.
/// </remarks>
public abstract partial class VirtioDevice
{
    private const string FeaturesRecord = "feat";

    private readonly int[] _queueSizes;

    /// <summary>Describes the device.</summary>
    /// <param name="id">The device type.</param>
    /// <param name="queueSizes">For each virtqueue the largest size that it may have.</param>
    /// <param name="config">The configuration space; null for a device without one.</param>
    protected VirtioDevice(VirtioDeviceId id, ReadOnlySpan<int> queueSizes, ConfigSpace? config = null)
    {
        Id = id;
        _queueSizes = queueSizes.ToArray();
        Config = config ?? new ConfigSpace(0);
        foreach (int size in _queueSizes)
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(size, 1, nameof(queueSizes));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(size, SplitRing.MaxSize, nameof(queueSizes));
        }
    }

    /// <summary>Raised, on any thread, after the device changed its configuration space.</summary>
    public event Action? ConfigChanged;

    /// <summary>
    /// Raised, on any thread, when the device cannot go on before it is reset: virtio-v1.3 "2.1 Device Status Field",
    /// DEVICE_NEEDS_RESET.
    /// </summary>
    public event Action? NeedsReset;

    /// <summary>The device type.</summary>
    public VirtioDeviceId Id { get; }

    /// <summary>Number of virtqueues.</summary>
    public int QueueCount => _queueSizes.Length;

    /// <summary>The configuration space.</summary>
    public ConfigSpace Config { get; }

    /// <summary>The device's own feature bits (0 to 23, 50 and above).</summary>
    public virtual ulong DeviceFeatures => 0;

    /// <summary>What the driver accepted, ring features included.</summary>
    public ulong NegotiatedFeatures { get; private set; }

    /// <summary>Largest size of a virtqueue.</summary>
    public int MaxQueueSize(int queue) => _queueSizes[queue];

    /// <summary>Tells the device what was negotiated; before queues start, and again when it changes.</summary>
    public void AcceptFeatures(ulong features)
    {
        NegotiatedFeatures = features;
        OnFeaturesAccepted(features);
    }

    /// <summary>Reads the configuration space for a driver; bytes beyond the end are zero. From any thread.</summary>
    public virtual void ReadConfig(uint offset, Span<byte> destination) => Config.Read(offset, destination);

    /// <summary>Writes to the configuration space as a driver does.</summary>
    /// <returns>False when nothing there may be written.</returns>
    public virtual bool WriteConfig(uint offset, ReadOnlySpan<byte> source, bool isMigration = false)
    {
        if (!Config.Write(offset, source, isMigration))
        {
            return false;
        }

        OnConfigWritten();
        return true;
    }

    /// <summary>Starts serving a ring on a worker's thread.</summary>
    /// <param name="setup">The ring.</param>
    /// <param name="links">How the ring's two sides notify each other, and who hears about faults.</param>
    /// <param name="worker">The thread.</param>
    /// <returns>The running queue, by which it is enabled, changed and stopped.</returns>
    /// <exception cref="VringSetupException">The ring cannot be served as set up.</exception>
    public virtual Task<RunningQueue> StartQueue(VringSetup setup, QueueLinks links, QueueWorker worker)
    {
        ArgumentNullException.ThrowIfNull(setup);
        ArgumentNullException.ThrowIfNull(worker);
        ArgumentOutOfRangeException.ThrowIfNegative(setup.Index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(setup.Index, QueueCount);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(setup.Size, MaxQueueSize(setup.Index));
        return worker.StartAsync(this, setup, links);
    }

    /// <summary>
    /// Makes sure that this device may be used, before its queues start: what one host only may use (an image, say) is
    /// taken, unless it was taken before. May wait a little for whoever is about to let go of it.
    /// </summary>
    /// <exception cref="IOException">Another has it.</exception>
    public virtual Task TakeOverAsync() => Task.CompletedTask;

    /// <summary>
    /// The guest goes on elsewhere: lets go of what <see cref="TakeOverAsync"/> takes. All queues are stopped; should
    /// they start again, it is taken again.
    /// </summary>
    public virtual void HandOver()
    {
    }

    /// <summary>
    /// The device's state beside rings and configuration space, for <see cref="LoadState"/> on another host. All queues
    /// are stopped; the device may go on afterwards.
    /// </summary>
    /// <exception cref="DeviceStateException">The device cannot be moved now.</exception>
    public byte[] SaveState()
    {
        DeviceStateWriter writer = new(Id);
        writer.Write(FeaturesRecord, NegotiatedFeatures & ~VirtioFeatures.Reserved);
        OnSave(writer);
        return writer.Finish();
    }

    /// <summary>Takes over the state that another process saved. All queues are stopped.</summary>
    /// <exception cref="DeviceStateException">It is damaged, or does not suit this device, which is as before.
    /// </exception>
    public void LoadState(ReadOnlySpan<byte> stream)
    {
        DeviceStateReader reader = new(Id, stream);
        ulong missing = reader.ReadNumber(FeaturesRecord) & ~DeviceFeatures;
        if (missing != 0)
        {
            throw new DeviceStateException($"the driver uses features that this device does not have: 0x{missing:x}");
        }

        Action apply = OnLoad(reader);
        reader.RequireAllRead();
        apply();
    }

    /// <summary>Puts the device back into its initial state. All queues are stopped.</summary>
    public virtual void Reset() => NegotiatedFeatures = 0;

    /// <summary>Level (a) and (b): handles one request on the queue's thread.</summary>
    /// <param name="queue">The queue's index.</param>
    /// <param name="chain">The request, borrowed for the call.</param>
    /// <returns>
    /// Bytes written into the writable buffers, from their start; ignored when the request was detached. These, and a
    /// trailer that was taken, are what a migration copies again.
    /// </returns>
    protected internal virtual uint HandleRequest(int queue, scoped in DescriptorChain chain) => 0;

    /// <summary>
    /// Level (b): the queue is about to stop, or its memory to change. Requests that wait for an event that may never
    /// come would hold that up: complete them, or let them go (<see cref="PendingRequest.LetGo"/>). On the queue's
    /// thread.
    /// </summary>
    /// <param name="queue">The queue's index.</param>
    protected internal virtual void OnQueueStopping(int queue)
    {
    }

    /// <summary>
    /// Level (c): makes the object that serves one queue, on that queue's thread, each time it is started.
    /// </summary>
    protected internal virtual QueueHandler CreateHandler(QueueContext context) => new RequestLoop(this, context);

    /// <summary>Adds what this kind of device carries over.</summary>
    protected virtual void OnSave(DeviceStateWriter writer)
    {
    }

    /// <summary>Reads and checks what <see cref="OnSave"/> wrote, and changes nothing yet.</summary>
    /// <returns>What makes it the device's state; called when all is well.</returns>
    /// <exception cref="DeviceStateException">A value does not suit this device.</exception>
    protected virtual Action OnLoad(DeviceStateReader reader) => static () => { };

    /// <summary>Called after features were accepted.</summary>
    protected virtual void OnFeaturesAccepted(ulong features)
    {
    }

    /// <summary>Called after a driver wrote to the configuration space.</summary>
    protected virtual void OnConfigWritten()
    {
    }

    /// <summary>To be called after the device changed <see cref="Config"/>, so that drivers look again.</summary>
    protected void NotifyConfigChanged() => ConfigChanged?.Invoke();

    /// <summary>To be called when the driver broke the device's own rules, and only a reset helps.</summary>
    protected void NotifyNeedsReset() => NeedsReset?.Invoke();
}

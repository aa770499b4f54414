// What a network device's packets come from and go to. A back-end has one receiver and one sender for each pair of
// virtqueues; each is used by one thread at a time, and outlives the virtqueues, which come and go.
//
// The seam: packets are whole Ethernet frames, with a header beside them that says what is still to be done (checksum,
// segmentation). A back-end without such a header leaves those features out and gets finished packets only.
using Outboard.Linux;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>The other side of a network device.</summary>
public abstract class NetBackend : IDisposable
{
    /// <summary>A line that tells what this is, for logs.</summary>
    public abstract string Description { get; }

    /// <summary>Pairs of queues that it has.</summary>
    public virtual int PairCount => 1;

    /// <summary>Largest packet without its Ethernet header, where that is known; 0 otherwise.</summary>
    public virtual int Mtu => 0;

    /// <summary>The offload features that it can give a driver; see <see cref="NetOffload.All"/>.</summary>
    public virtual ulong Features => 0;

    /// <summary>Whether the other side is there; packets are dropped while it is not.</summary>
    public virtual bool IsConnected => true;

    /// <summary>Raised, on any thread, after <see cref="IsConnected"/> has changed.</summary>
    public event Action? ConnectionChanged;

    /// <summary>Where a pair's packets come from.</summary>
    public abstract PacketReceiver Receiver(int pair);

    /// <summary>Where a pair's packets go.</summary>
    public abstract PacketSender Sender(int pair);

    /// <summary>The driver accepted these features; all others are off. On the control plane.</summary>
    public virtual void AcceptFeatures(ulong features)
    {
    }

    /// <summary>Whether a pair is in use, so that packets may be directed to it. On the pair's thread.</summary>
    public virtual void SetActive(int pair, bool active)
    {
    }

    /// <summary>Closes everything. No queue runs.</summary>
    public abstract void Dispose();

    /// <summary>Raises <see cref="ConnectionChanged"/>.</summary>
    protected void TellConnectionChanged() => ConnectionChanged?.Invoke();
}

/// <summary>How an attempt to receive or to send ended.</summary>
public enum PacketOutcome
{
    /// <summary>The packet moved.</summary>
    Done,

    /// <summary>Not now: wait for the descriptor.</summary>
    Later,

    /// <summary>The packet is lost: too long, refused, or nobody is there.</summary>
    Dropped,
}

/// <summary>The receiving half of a pair.</summary>
public abstract class PacketReceiver : IDisposable
{
    /// <summary>Becomes readable when packets come; null when none do.</summary>
    public abstract FileDescriptor? Waitable { get; }

    /// <summary>
    /// Called, from any thread, when there is another <see cref="Waitable"/> to be had by <see cref="Renew"/>. The
    /// queue that uses this sets it while it runs.
    /// </summary>
    public Action? Renewed { get; set; }

    /// <summary>Goes over to what replaces <see cref="Waitable"/>, if something does. On the queue's thread.</summary>
    public virtual void Renew()
    {
    }

    /// <summary>Takes the next packet.</summary>
    /// <param name="header">What is still to be done with it.</param>
    /// <param name="frame">The packet, until the next call.</param>
    public abstract PacketOutcome TryReceive(out NetHeader header, out ReadOnlyMemory<byte> frame);

    /// <summary>Frees its buffers.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

/// <summary>The sending half of a pair.</summary>
public abstract class PacketSender : IDisposable
{
    /// <summary>Becomes writable when there is room again; null when there always is.</summary>
    public abstract FileDescriptor? Waitable { get; }

    /// <summary>
    /// Called, from any thread, when there is another <see cref="Waitable"/> to be had by <see cref="Renew"/>. The
    /// queue that uses this sets it while it runs.
    /// </summary>
    public Action? Renewed { get; set; }

    /// <summary>Goes over to what replaces <see cref="Waitable"/>, if something does. On the queue's thread.</summary>
    public virtual void Renew()
    {
    }

    /// <summary>Sends a packet. Its memory is not used after the call.</summary>
    /// <param name="header">What is still to be done with it; checked.</param>
    /// <param name="frame">The packet, in pieces.</param>
    /// <param name="frameBytes">Bytes of all pieces; at most <see cref="NetOffload.MaxFrameBytes"/>.</param>
    public abstract PacketOutcome TrySend(in NetHeader header, ReadOnlySpan<IoSegment> frame, int frameBytes);

    /// <summary>The descriptor has room again: what a sender kept of an earlier packet goes on.</summary>
    public virtual void OnWritable()
    {
    }

    /// <summary>Frees its buffers.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

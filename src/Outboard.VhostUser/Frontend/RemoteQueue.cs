// One queue of a device behind a connection. What the driver said of it is kept here, so that it can be said again to
// the next back-end.
//
// Kicks: the doorbell's eventfd itself goes to the back-end. Calls: the eventfd of the interrupt itself, as long as
// nothing holds that interrupt back; otherwise one of this process, whose signals go through the function's masks. The
// latter is watched all the time, so nothing is lost when the two change places.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>A queue that a back-end serves. Used by whoever has the device's turn.</summary>
internal sealed class RemoteQueue : HostedQueue, IDisposable
{
    private readonly RemoteDevice _device;
    private readonly VringSetup _setup;
    private readonly EventFd _kick;
    private readonly InterruptNotifier _interrupt;
    private readonly EventFd _call = new();
    private readonly EventFd _error = new();
    private readonly IDisposable _callWatch;
    private readonly IDisposable _errorWatch;
    private long _route;
    private uint _base;

    internal RemoteQueue(RemoteDevice device, VringSetup setup, QueueLinks links, EventWatcher watcher)
    {
        _device = device;
        _setup = setup;
        _kick = new EventFd(links.Kick!.Waitable!.Duplicate());
        links.Kick.Dispose();
        _interrupt = (InterruptNotifier)links.Call!;
        _base = setup.Base;
        IsEnabled = links.IsEnabled;
        _callWatch = watcher.Add(_call, _ => _interrupt.Signal(), owns: true);
        _errorWatch = watcher.Add(_error, _ => device.OnRingBroken(Index), owns: true);
    }

    internal int Index => _setup.Index;

    /// <summary>Whether the driver is ready.</summary>
    internal bool IsEnabled { get; set; }

    /// <summary>Whether the present back-end serves it.</summary>
    internal bool IsServed { get; private set; }

    /// <summary>Whether interrupts reach the guest without this process.</summary>
    internal bool IsDirect => _route != 0;

    private bool IsPacked => (_setup.Features & VirtioFeatures.RingPacked) != 0;

    /// <inheritdoc/>
    public override ValueTask EnableAsync() => _device.EnableAsync(this);

    /// <inheritdoc/>
    public override ValueTask RouteAsync() => _interrupt.Route == _route ? default : _device.RouteAsync(this);

    /// <inheritdoc/>
    public override ValueTask<uint> StopAsync() => _device.StopAsync(this);

    /// <summary>Tells the back-end everything, in the order that every one accepts.</summary>
    internal async Task SetUpAsync(VhostUserFrontend frontend, CancellationToken cancellation)
    {
        await frontend.SetVringNumAsync(Index, _setup.Size, cancellation).ConfigureAwait(false);
        await frontend.SetVringBaseAsync(Index, _base, cancellation).ConfigureAwait(false);
        await frontend.SetVringAddrAsync(Index, _setup.Addresses, cancellation).ConfigureAwait(false);
        await frontend.SetVringErrAsync(Index, _error, cancellation).ConfigureAwait(false);
        await SetCallAsync(frontend, cancellation).ConfigureAwait(false);

        // From here on the back-end may use the ring: should it go away, the ring tells how far it came.
        IsServed = true;
        await frontend.SetVringKickAsync(Index, _kick, cancellation).ConfigureAwait(false);
        if ((frontend.Features & VirtioFeatures.ProtocolFeatures) != 0)
        {
            await frontend.SetVringEnableAsync(Index, true, cancellation).ConfigureAwait(false);
        }

        // What came before may wait in the ring; its kick went to an earlier back-end.
        _kick.Signal();
    }

    /// <summary>Sends calls where they belong now.</summary>
    internal async Task SetCallAsync(VhostUserFrontend frontend, CancellationToken cancellation)
    {
        long route = _interrupt.Route;
        using EventFd? line = route == 0 ? null : _interrupt.ShareLine();
        await frontend.SetVringCallAsync(Index, line ?? _call, cancellation).ConfigureAwait(false);
        _route = line is null ? 0 : route;
    }

    /// <summary>Has the back-end stop, and notes where it stands.</summary>
    internal async Task PauseAsync(VhostUserFrontend frontend, CancellationToken cancellation)
    {
        if ((frontend.Features & VirtioFeatures.ProtocolFeatures) != 0)
        {
            await frontend.SetVringEnableAsync(Index, false, cancellation).ConfigureAwait(false);
        }

        _base = await frontend.GetVringBaseAsync(Index, cancellation).ConfigureAwait(false);
        IsServed = false;
        _route = 0;
    }

    /// <summary>Where the queue stands.</summary>
    internal uint Base => _base;

    /// <summary>The back-end is gone: finds out from the ring where the next one goes on.</summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="isRecorded">An in-flight region tells the next one what was in flight.</param>
    /// <param name="isInOrder">Requests are completed in order, so that the used index tells which are not.</param>
    /// <returns>False when that cannot be known.</returns>
    internal bool Recover(GuestMemory memory, bool isRecorded, bool isInOrder)
    {
        IsServed = false;
        _route = 0;
        if (IsPacked)
        {
            // A region has the position, too; without one nobody but the driver knows it.
            return isRecorded;
        }

        Span<byte> bytes = stackalloc byte[sizeof(ushort)];
        if (!memory.TryGetWindow(_setup.Addresses.Used, 4, out MemoryWindow usedRing)
            || !memory.TryGetWindow(_setup.Addresses.Available, 4, out MemoryWindow availableRing))
        {
            return false;
        }

        usedRing.Slice(2, 2).Span.CopyTo(bytes);
        ushort used = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        availableRing.Slice(2, 2).Span.CopyTo(bytes);
        ushort available = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        _base = used;
        return isRecorded || isInOrder || used == available;
    }

    public void Dispose()
    {
        IsServed = false;
        _callWatch.Dispose();
        _errorWatch.Dispose();
        _kick.Dispose();
    }
}

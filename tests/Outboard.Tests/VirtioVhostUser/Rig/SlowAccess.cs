// A device whose status is a long time on its way: what the driver gets is what was true when it asked.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.Tests.VirtioVhostUser;

/// <summary>The first look at the status after arming takes as long as a test wants; no change is told until then.
/// </summary>
/// <param name="inner">The device, which stays its maker's.</param>
internal sealed class SlowAccess(DriverAccess inner) : DriverAccess
{
    private readonly CountingLink _receive = new(inner.Receive);
    private readonly TaskCompletionSource _asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _goes = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _isArmed;

    /// <summary>The device has answered; the driver has not got it.</summary>
    public Task Asked => _asked.Task;

    /// <summary>How often the driver has given buffers for messages.</summary>
    public int Given => _receive.Count;

    public override string Description => inner.Description;

    public override ulong Features => inner.Features;

    public override int Rings => inner.Rings;

    public override DriverQueueLink Receive => _receive;

    public override DriverQueueLink Transmit => inner.Transmit;

    public override IReadOnlyList<EventFd> Interrupts => inner.Interrupts;

    /// <summary>Lets the answer arrive.</summary>
    public void GoOn() => _goes.SetResult();

    public override EventFd? KickOf(int ring) => inner.KickOf(ring);

    public override void Ring(int notification) => inner.Ring(notification);

    public override SharedMemory? OpenWindow(byte region) => inner.OpenWindow(region);

    public override async Task<bool> HasChangedAsync(CancellationToken cancellation) =>
        _goes.Task.IsCompleted && await inner.HasChangedAsync(cancellation);

    public override async Task<uint> ReadStatusAsync(CancellationToken cancellation)
    {
        uint status = await inner.ReadStatusAsync(cancellation);
        if (_isArmed && _asked.TrySetResult())
        {
            await _goes.Task.WaitAsync(cancellation);
        }

        return status;
    }

    public override async Task WriteStatusAsync(uint status, CancellationToken cancellation)
    {
        await inner.WriteStatusAsync(status, cancellation);
        _isArmed = (status & VirtioVhostUserSpec.BackendUp) != 0;
    }

    public override Task<uint> ReadSessionAsync(CancellationToken cancellation) =>
        inner.ReadSessionAsync(cancellation);

    public override Task AcknowledgeSessionAsync(uint session, CancellationToken cancellation) =>
        inner.AcknowledgeSessionAsync(session, cancellation);

    public override ValueTask DisposeAsync() => default;

    private sealed class CountingLink(DriverQueueLink inner) : DriverQueueLink
    {
        private int _count;

        public int Count => Volatile.Read(ref _count);

        public override DriverQueue Ring => inner.Ring;

        public override DriverMemory Memory => inner.Memory;

        public override void Submit()
        {
            inner.Submit();
            Interlocked.Increment(ref _count);
        }

        public override bool WaitForUsed(int timeoutMs) => inner.WaitForUsed(timeoutMs);
    }
}

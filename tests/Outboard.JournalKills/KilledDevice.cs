// A counter or a register on a ring in shared memory, without a transport: one life of the device, opened anew after
// each kill.
using Outboard.Devices.Register;
using Outboard.Linux.Files;
using Outboard.Memory;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;

namespace Outboard.JournalKills;

/// <summary>The device's side.</summary>
internal sealed class KilledDevice : IDisposable
{
    private readonly DeviceJournal _journal;
    private readonly Virtqueue _queue;
    private readonly JournaledQueue _handler;

    /// <param name="shape">The ring.</param>
    /// <param name="state">The state file; belongs to this object.</param>
    /// <param name="setup">Where the ring lies.</param>
    public KilledDevice(KillShape shape, OwnedFile state, VringSetup setup)
    {
        _journal = DeviceJournal.Open(state, shape.IsRegister ? RegisterDevice.Layout : CounterDevice.Layout);
        try
        {
            _queue = Virtqueue.Create(setup);
        }
        catch
        {
            _journal.Dispose();
            throw;
        }

        JournalLane lane = _journal.Lane(0);
        _handler = shape.IsRegister
            ? new RegisterDevice.RegisterQueue(_queue, lane)
            : new CounterDevice.CounterQueue(_queue, lane);
    }

    /// <summary>The state word: the counter, or the register.</summary>
    public ulong Value => _journal.Lane(0).Read(0);

    /// <summary>Processes, or their likes, that have had the state.</summary>
    public ulong Owners => _journal.Owners;

    public VirtqueueFault Fault => _queue.Fault;

    /// <summary>Handles up to so many requests, and publishes them.</summary>
    public int Serve(int limit)
    {
        int served = _handler.Drain(limit);
        if (_queue.HasUnpublished)
        {
            _queue.Publish();
            _ = _queue.ShouldCall();
        }

        return served;
    }

    /// <summary>Handles requests without publishing them.</summary>
    public int ServeSilently(int limit) => _handler.Drain(limit);

    /// <summary>Ends the queue as a transport does, which a kill does not.</summary>
    public void Stop() => _handler.Dispose();

    /// <summary>Lets go of the memory and the file: nothing is stored.</summary>
    public void Dispose()
    {
        _queue.Dispose();
        _journal.Dispose();
    }
}

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
    private readonly NumberQueue _handler;
    private readonly bool _isDeferred;

    /// <param name="shape">The ring.</param>
    /// <param name="state">The state file; belongs to this object.</param>
    /// <param name="setup">Where the ring lies.</param>
    /// <param name="random">In which order requests that are kept open take effect.</param>
    public KilledDevice(KillShape shape, OwnedFile state, VringSetup setup, Random? random = null)
    {
        _isDeferred = shape.IsDeferred;
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
        NumberEffect effect = shape.IsRegister ? RegisterDevice.Swap : CounterDevice.Add;
        _handler = new NumberQueue(_queue, lane, effect, shape.IsDeferred ? random ?? new Random() : null);
    }

    /// <summary>The state word: the counter, or the register.</summary>
    public ulong Value => _journal.Lane(0).Read(0);

    /// <summary>Processes, or their likes, that have had the state.</summary>
    public ulong Owners => _journal.Owners;

    public VirtqueueFault Fault => _queue.Fault;

    /// <summary>Handles up to so many requests, and publishes them.</summary>
    public int Serve(int limit)
    {
        int served = ServeSilently(limit);
        if (_queue.HasUnpublished)
        {
            _queue.Publish();
            _ = _queue.ShouldCall();
        }

        return served;
    }

    /// <summary>Handles requests without publishing them, or takes them and finishes some of those that are open.
    /// </summary>
    public int ServeSilently(int limit)
    {
        int served = _handler.Drain(limit);
        if (_isDeferred && _handler.Open > 0)
        {
            served++;
            _handler.FinishSome();
        }

        return served;
    }

    /// <summary>Ends the queue as a transport does, which a kill does not.</summary>
    public void Stop() => _handler.Dispose();

    /// <summary>Lets go of the memory and the file: nothing is stored.</summary>
    public void Dispose()
    {
        _queue.Dispose();
        _journal.Dispose();
    }
}

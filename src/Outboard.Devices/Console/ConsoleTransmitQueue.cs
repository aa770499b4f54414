// A port's output: each request's bytes go to the log at the position that the lane tells, then the next position is
// committed, then the terminal gets them. Written to the log again after a kill they are the same bytes in the same
// place. A log that cannot be written (its disk is full) holds the port up, and is tried again.
using Outboard.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;

namespace Outboard.Devices.Console;

internal sealed class ConsoleTransmitQueue : JournaledQueue
{
    private static readonly TimeSpan s_retryInterval = TimeSpan.FromMilliseconds(200);

    private readonly ConsoleDevice _device;
    private readonly QueueContext _context;
    private readonly ConsolePort _port;
    private readonly Timer _timer;
    private readonly Lock _gate = new();
    private bool _isDisposed;
    private int _error;

    internal ConsoleTransmitQueue(ConsoleDevice device, QueueContext context, JournalLane lane, ConsolePort port)
        : base(context.Queue, lane)
    {
        _device = device;
        _context = context;
        _port = port;
        _timer = new Timer(_ => Wake());
    }

    public override void Dispose()
    {
        lock (_gate)
        {
            _isDisposed = true;
        }

        _timer.Dispose();
        _device.Ended(this);
        base.Dispose();
    }

    /// <summary>From any thread.</summary>
    internal void WriteEmergency(byte character) => _context.Post(() => _device.WriteEmergency(character, Lane));

    protected override bool TryHandle(scoped in DescriptorChain chain)
    {
        if (_port.Log is not { } log)
        {
            return true;
        }

        ulong position = Lane.Read(ConsoleDevice.PositionWord);
        int error = log.Write(chain.Readable.Segments, (long)position);
        if (error != _error)
        {
            _error = error;
            _device.OnLogChanged(log.Name, error);
        }

        if (error is not (0 or Errno.BadAddress))
        {
            _timer.Change(s_retryInterval, Timeout.InfiniteTimeSpan);
            return false;
        }

        if (error == 0)
        {
            Lane.Write(ConsoleDevice.PositionWord, position + (ulong)chain.Readable.Length);
        }

        return true;
    }

    protected override void OnCommitted(scoped in DescriptorChain chain) =>
        _port.Terminal?.Write(chain.Readable.Segments);

    private void Wake()
    {
        // A timer may fire while it is disposed, and the worker may be gone after that.
        lock (_gate)
        {
            if (!_isDisposed)
            {
                _context.Wake();
            }
        }
    }
}

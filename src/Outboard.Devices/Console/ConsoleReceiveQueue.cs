// A port's input: bytes are read from the terminal when the driver has a buffer for them. A request is answered with
// what is there; none is held. Input that was read and not delivered is lost in a kill.
using Outboard.Devices.Console.Backends;
using Outboard.Virtio;
using Outboard.Virtio.Queue;

namespace Outboard.Devices.Console;

internal sealed class ConsoleReceiveQueue : QueueHandler
{
    private const int PieceBytes = 4096;

    private readonly QueueContext _context;
    private readonly Virtqueue _queue;
    private readonly ConsoleTerminal? _terminal;
    private readonly byte[] _input = new byte[PieceBytes];
    private readonly Lock _gate = new();
    private volatile bool _isReady;
    private bool _hasEnded;
    private bool _isDisposed;
    private int _start;
    private int _end;

    internal ConsoleReceiveQueue(QueueContext context, ConsoleTerminal? terminal)
    {
        _context = context;
        _queue = context.Queue;
        _terminal = terminal;
        _hasEnded = terminal is null;
        _isReady = terminal is not null;
        if (terminal?.Waitable is { } waitable)
        {
            context.Watch(waitable);
        }
        else if (terminal is not null)
        {
            terminal.InputArrived += OnInput;
        }
    }

    public override bool WantsChains => _isReady || _start < _end;

    public override void OnReady() => _isReady = !_hasEnded;

    public override int Drain(int limit)
    {
        int taken = 0;
        while (taken < limit && _queue.HasAvailable && HasInput() && _queue.TryTake(out DescriptorChain chain))
        {
            int written = chain.Writable.CopyFrom(0, _input.AsSpan(_start, _end - _start));
            _start += written;
            taken++;
            chain.Complete((uint)written);
        }

        return taken;
    }

    public override void Dispose()
    {
        if (_terminal is not null)
        {
            _terminal.InputArrived -= OnInput;
        }

        lock (_gate)
        {
            _isDisposed = true;
        }

        base.Dispose();
    }

    private bool HasInput()
    {
        if (_start < _end)
        {
            return true;
        }

        if (!_isReady)
        {
            return false;
        }

        // Told before it is read: what arrives meanwhile makes it ready again.
        _isReady = false;
        int read = _terminal!.TryRead(_input);
        _start = 0;
        _end = Math.Max(read, 0);
        _hasEnded |= read == 0;
        _isReady |= read > 0;
        return read > 0;
    }

    private void OnInput()
    {
        lock (_gate)
        {
            if (!_isDisposed)
            {
                _isReady = true;
                _context.Wake();
            }
        }
    }
}

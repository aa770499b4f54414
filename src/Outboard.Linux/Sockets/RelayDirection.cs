// One direction of a relayed channel. Bytes and descriptors arrive at the other side exactly as they were sent, and a
// message in one piece: some receivers read it with one call. A message whose rest does not come is passed on as far
// as it is there, after a short while: its receiver may be about to refuse it by its header.
//
// Descriptors stay with the byte that they came with. An end of the stream is passed on as an end of this direction.
using System.Net.Sockets;

namespace Outboard.Linux.Sockets;

/// <summary>Called with each message before it is passed on; may exchange descriptors in the list.</summary>
public delegate void RelayObserver(StreamCutter message, int descriptorCount, IList<FileDescriptor> descriptors);

/// <summary>Moves messages from one socket to another, which stay the caller's.</summary>
/// <param name="from">Where messages come from.</param>
/// <param name="to">Where they go.</param>
/// <param name="cutter">Finds the messages.</param>
/// <param name="observe">Sees them.</param>
public sealed class RelayDirection(UnixSocket from, UnixSocket to, StreamCutter cutter, RelayObserver observe)
{
    /// <summary>A message that is longer is passed on in pieces of this size (pictures of the GPU protocol).</summary>
    private const int MaxHeldBytes = 64 * 1024;

    private static readonly TimeSpan s_longestHold = TimeSpan.FromMilliseconds(20);

    /// <summary>Time for what was received already, when the trace is ended.</summary>
    private static readonly TimeSpan s_drain = TimeSpan.FromMilliseconds(300);

    private readonly byte[] _buffer = new byte[MaxHeldBytes];
    private readonly List<FileDescriptor> _arrived = [];
    private readonly List<FileDescriptor> _descriptors = [];
    private int _held;
    private int _countOfMessage;

    /// <summary>Relays until the sender ends, the receiver is gone, or the trace is ended.</summary>
    public async Task RunAsync(CancellationToken ending)
    {
        try
        {
            while (await ReceiveAsync(ending).ConfigureAwait(false) is > 0 and int count)
            {
                await TakeAsync(count, ending).ConfigureAwait(false);
            }

            await FlushAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            await DrainAsync().ConfigureAwait(false);
        }
        catch (LinuxException)
        {
            // The receiver is gone. The sender learns it as it would have without us.
            from.Shutdown(SocketShutdown.Receive);
        }
        finally
        {
            Drop(_descriptors);
            Drop(_arrived);
            to.Shutdown(SocketShutdown.Send);
        }
    }

    private Memory<byte> Next => _buffer.AsMemory(_held, (int)Math.Min(cutter.Wanted, (uint)(MaxHeldBytes - _held)));

    private async ValueTask<int> ReceiveAsync(CancellationToken ending)
    {
        try
        {
            if (_held == 0)
            {
                return await from.ReceiveAsync(Next, _arrived, ending).ConfigureAwait(false);
            }

            int received = from.TryReceive(Next.Span, _arrived);
            return received >= 0 ? received : await WaitForRestAsync(ending).ConfigureAwait(false);
        }
        catch (LinuxException error) when (error.Errno == Errno.ConnectionReset)
        {
            return 0;
        }
    }

    private async ValueTask<int> WaitForRestAsync(CancellationToken ending)
    {
        using CancellationTokenSource hold = CancellationTokenSource.CreateLinkedTokenSource(ending);
        hold.CancelAfter(s_longestHold);
        try
        {
            return await from.ReceiveAsync(Next, _arrived, hold.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!ending.IsCancellationRequested)
        {
            await FlushAsync(ending).ConfigureAwait(false);
            return await from.ReceiveAsync(Next, _arrived, ending).ConfigureAwait(false);
        }
    }

    private async ValueTask TakeAsync(int count, CancellationToken ending)
    {
        ReadOnlyMemory<byte> bytes = _buffer.AsMemory(_held, count);
        if (_arrived.Count > 0 && _held > 0)
        {
            // Descriptors in the middle of a message: they stay with their byte.
            byte[] piece = bytes.ToArray();
            await FlushAsync(ending).ConfigureAwait(false);
            piece.CopyTo(_buffer.AsSpan());
            bytes = _buffer.AsMemory(0, count);
        }

        _held += count;
        _countOfMessage += _arrived.Count;
        _descriptors.AddRange(_arrived);
        _arrived.Clear();
        bool isComplete = cutter.Advance(bytes.Span);
        if (isComplete)
        {
            observe(cutter, _countOfMessage, _descriptors);
            _countOfMessage = 0;
        }

        if (isComplete || _held == MaxHeldBytes)
        {
            await FlushAsync(ending).ConfigureAwait(false);
        }
    }

    private async ValueTask FlushAsync(CancellationToken ending)
    {
        if (_held == 0)
        {
            return;
        }

        // Not cancelled half way: what was begun is sent, unless the receiver takes nothing any more.
        using CancellationTokenSource limit = new();
        using CancellationTokenRegistration registration = ending.Register(() => limit.CancelAfter(s_drain));
        await to.SendAsync(_buffer.AsMemory(0, _held), _descriptors.ToArray(), limit.Token).ConfigureAwait(false);
        _held = 0;
        Drop(_descriptors);
    }

    private async Task DrainAsync()
    {
        using CancellationTokenSource limit = new(s_drain);
        try
        {
            while (!limit.IsCancellationRequested && from.TryReceive(Next.Span, _arrived) is > 0 and int count)
            {
                await TakeAsync(count, limit.Token).ConfigureAwait(false);
            }

            await FlushAsync(limit.Token).ConfigureAwait(false);
        }
        catch (LinuxException)
        {
            // Either side is gone.
        }
        catch (OperationCanceledException)
        {
            // The receiver takes nothing.
        }
    }

    private static void Drop(List<FileDescriptor> descriptors)
    {
        foreach (FileDescriptor descriptor in descriptors)
        {
            descriptor.Dispose();
        }

        descriptors.Clear();
    }
}

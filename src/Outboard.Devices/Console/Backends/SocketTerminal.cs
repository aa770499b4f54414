// A UNIX socket as a port's other side: one peer at a time, the next one waits until it leaves. Input is taken from the
// socket piece by piece, each when the guest has taken the one before; output goes to the peer as far as it reads.
//
// The lock is contended only when a peer comes or leaves.
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.Devices.Console.Backends;

/// <summary>A listening UNIX socket as a port's other side.</summary>
public sealed class SocketTerminal : ConsoleTerminal
{
    private const int PieceBytes = 4096;

    private readonly UnixListener _listener;
    private readonly CancellationTokenSource _ending = new();
    private readonly SemaphoreSlim _taken = new(0);
    private readonly Lock _gate = new();
    private readonly byte[] _input = new byte[PieceBytes];
    private readonly Task _serving;
    private PacketDescriptor? _peer;
    private int _start;
    private int _end;

    /// <summary>Begins to accept peers.</summary>
    /// <param name="listener">The socket; belongs to this object.</param>
    /// <param name="name">What it is, for logs.</param>
    public SocketTerminal(UnixListener listener, string name)
    {
        _listener = listener;
        Description = name;
        _serving = ServeAsync();
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override FileDescriptor? Waitable => null;

    /// <inheritdoc/>
    public override int TryRead(Span<byte> destination)
    {
        lock (_gate)
        {
            int count = Math.Min(destination.Length, _end - _start);
            if (count == 0)
            {
                return -Errno.TryAgain;
            }

            _input.AsSpan(_start, count).CopyTo(destination);
            _start += count;
            if (_start == _end)
            {
                _taken.Release();
            }

            return count;
        }
    }

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<IoSegment> output)
    {
        lock (_gate)
        {
            while (_peer is not null && !output.IsEmpty)
            {
                ReadOnlySpan<IoSegment> some = output[..Math.Min(output.Length, PacketDescriptor.MaxSegments)];
                if (_peer.TryWrite(some) <= 0)
                {
                    return;
                }

                output = output[some.Length..];
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _ending.Cancel();
        _listener.Dispose();
        _serving.ContinueWith(_ => { }, TaskScheduler.Default).Wait();
        _ending.Dispose();
        _taken.Dispose();
        base.Dispose();
    }

    private async Task ServeAsync()
    {
        while (!_ending.IsCancellationRequested)
        {
            try
            {
                using UnixSocket socket = await _listener.AcceptAsync(_ending.Token).ConfigureAwait(false);
                await TalkAsync(socket).ConfigureAwait(false);
            }
            catch (Exception error) when (error is IOException or System.Net.Sockets.SocketException)
            {
                // The peer is gone; the next one may come.
            }
            catch (Exception error) when (error is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    private async Task TalkAsync(UnixSocket socket)
    {
        using PacketDescriptor peer = new(socket.DuplicateDescriptor());
        SetPeer(peer);
        try
        {
            byte[] piece = new byte[PieceBytes];
            List<FileDescriptor> unwanted = [];
            while (await socket.ReceiveAsync(piece, unwanted, _ending.Token).ConfigureAwait(false) is var count and > 0)
            {
                unwanted.ForEach(static descriptor => descriptor.Dispose());
                unwanted.Clear();
                HandOver(piece.AsSpan(0, count));
                TellInput();
                await _taken.WaitAsync(_ending.Token).ConfigureAwait(false);
            }
        }
        finally
        {
            SetPeer(null);
        }
    }

    private void SetPeer(PacketDescriptor? peer)
    {
        lock (_gate)
        {
            _peer = peer;
        }
    }

    private void HandOver(ReadOnlySpan<byte> piece)
    {
        lock (_gate)
        {
            piece.CopyTo(_input);
            _start = 0;
            _end = piece.Length;
        }
    }
}

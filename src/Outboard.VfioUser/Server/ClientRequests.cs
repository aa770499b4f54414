// Commands of ours to the client: DMA_READ and DMA_WRITE. They go over the twin socket when there is one, else over the
// main one, between its replies. Any number may be under way; each has a number by which its reply is found.
//
// Clients differ in their replies to DMA_WRITE: with the head (16 bytes), with a head of 12 bytes, or with none. A
// reply to DMA_READ has the head and the data; one whose head has 12 bytes comes from QEMU 10 and is understood as
// well.
//
// Who asked may give up; a message that has begun goes out as a whole all the same, and its number stays taken until
// the reply has come: a part of a message, or a reply that nobody expects, would be the end of the stream's order.
using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Pci.Dma;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>Our commands to one client. All members may be called from any thread.</summary>
internal sealed class ClientRequests(SocketChannel channel, TimeSpan limit)
{
    /// <summary>The head of DMA replies of clients that have a 32-bit count.</summary>
    private const int ShortHeadBytes = 12;

    /// <summary>
    /// Most data that is asked for in one message where the reply comes between the client's commands. QEMU 11.1 takes
    /// a message for sent when the socket took a part of it, and what follows is read as nonsense. Linux takes a
    /// message of up to 36 KiB as a whole or not at all, however full the socket is.
    /// </summary>
    internal const int MaxSharedReadBytes = 32 << 10;

    /// <summary>Who waits for a reply; cancelled when it gave up, and the reply is nobody's.</summary>
    private readonly ConcurrentDictionary<ushort, TaskCompletionSource<VfioUserMessage?>> _pending = [];

    private readonly SocketChannel _shared = channel;
    private int _lastId;

    /// <summary>The channel; the twin one once it was negotiated.</summary>
    internal SocketChannel Channel { get; set; } = channel;

    /// <summary>Bytes of data in a message, negotiated.</summary>
    internal int MaxTransferBytes { get; set; } = VersionCapabilities.MaxTransferBytes;

    /// <summary>Hands a reply to whoever waits for it, and with it the message.</summary>
    /// <returns>False when nobody asked.</returns>
    internal bool TryComplete(VfioUserMessage reply)
    {
        if (!_pending.TryRemove(reply.Header.Id, out TaskCompletionSource<VfioUserMessage?>? waiting))
        {
            return false;
        }

        if (!waiting.TrySetResult(reply))
        {
            reply.Dispose();
        }

        return true;
    }

    /// <summary>Ends all waiting: the client is gone.</summary>
    internal void End()
    {
        foreach (ushort id in _pending.Keys)
        {
            if (_pending.TryRemove(id, out TaskCompletionSource<VfioUserMessage?>? waiting))
            {
                waiting.TrySetResult(null);
            }
        }
    }

    /// <summary>Reads guest memory by messages.</summary>
    internal async ValueTask ReadAsync(ulong address, Memory<byte> destination, CancellationToken cancellation)
    {
        while (!destination.IsEmpty)
        {
            int count = Part(destination.Length, address);
            count = ReferenceEquals(Channel, _shared) ? Math.Min(count, MaxSharedReadBytes) : count;
            byte[] head = Head(new DmaAccessPayload(address, (ulong)count), 0);
            using VfioUserMessage reply = await AskAsync(
                VfioUserCommand.DmaRead, head, address, cancellation).ConfigureAwait(false);
            int got = TakeData(reply, address, destination[..count]);
            destination = destination[got..];
            address += (uint)got;
        }
    }

    /// <summary>Writes guest memory by messages.</summary>
    internal async ValueTask WriteAsync(ulong address, ReadOnlyMemory<byte> source, CancellationToken cancellation)
    {
        while (!source.IsEmpty)
        {
            int count = Part(source.Length, address);
            byte[] message = Head(new DmaAccessPayload(address, (ulong)count), count);
            source.Span[..count].CopyTo(message.AsSpan(DmaAccessPayload.Bytes));
            using VfioUserMessage reply = await AskAsync(
                VfioUserCommand.DmaWrite, message, address, cancellation).ConfigureAwait(false);
            int done = TakeCount(reply, address, count);
            source = source[done..];
            address += (uint)done;
        }
    }

    private static byte[] Head(DmaAccessPayload head, int dataBytes)
    {
        byte[] message = new byte[DmaAccessPayload.Bytes + dataBytes];
        MemoryMarshal.Write(message, head);
        return message;
    }

    private int Part(int length, ulong address)
    {
        int most = MaxTransferBytes;
        return most > 0 ? Math.Min(length, most) : throw new DmaException(Errno.NotSupported, address);
    }

    private async ValueTask<VfioUserMessage> AskAsync(
        VfioUserCommand command, byte[] payload, ulong address, CancellationToken cancellation)
    {
        TaskCompletionSource<VfioUserMessage?> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        ushort id = TakeNumber(answer, address);
        try
        {
            await SendAsync(id, command, payload, cancellation).WaitAsync(limit, cancellation).ConfigureAwait(false);
            VfioUserMessage reply = await answer.Task.WaitAsync(limit, cancellation).ConfigureAwait(false)
                ?? throw new DmaException(Errno.InputOutput, address);
            return reply.Header.Command == command && reply.Attachments.Count == 0
                ? reply
                : throw Fail(reply, Errno.Protocol, address);
        }
        catch (Exception error) when (error is TimeoutException or OperationCanceledException
            or IOException and not DmaException or ObjectDisposedException)
        {
            if (!answer.TrySetCanceled(CancellationToken.None))
            {
                // It came in the last moment.
                (await answer.Task.ConfigureAwait(false))?.Dispose();
            }

            throw error is OperationCanceledException ? error : new DmaException(Errno.InputOutput, address);
        }
    }

    /// <summary>Finds a number that no reply is due for.</summary>
    private ushort TakeNumber(TaskCompletionSource<VfioUserMessage?> answer, ulong address)
    {
        for (int i = 0; i <= ushort.MaxValue; i++)
        {
            ushort id = (ushort)Interlocked.Increment(ref _lastId);
            if (_pending.TryAdd(id, answer))
            {
                return id;
            }
        }

        throw new DmaException(Errno.TryAgain, address);
    }

    /// <summary>Sends a command; one that is not sent will have no reply.</summary>
    private async Task SendAsync(
        ushort id, VfioUserCommand command, byte[] payload, CancellationToken cancellation)
    {
        try
        {
            await Channel.SendAsync(
                id, command, MessageFlags.None, payload, cancellation: cancellation).ConfigureAwait(false);
        }
        catch
        {
            _pending.TryRemove(id, out _);
            throw;
        }
    }

    private static int TakeData(VfioUserMessage reply, ulong address, Memory<byte> destination)
    {
        RequireSuccess(reply, address);
        ReadOnlySpan<byte> payload = reply.Payload.Span;
        if (payload.Length == ShortHeadBytes + destination.Length
            && MemoryMarshal.Read<uint>(payload[sizeof(ulong)..]) == (uint)destination.Length)
        {
            payload[ShortHeadBytes..].CopyTo(destination.Span);
            return destination.Length;
        }

        if (payload.Length < DmaAccessPayload.Bytes)
        {
            throw new DmaException(Errno.Protocol, address);
        }

        int got = Progress(reply.Read<DmaAccessPayload>(), address, destination.Length);
        if (payload.Length != DmaAccessPayload.Bytes + got)
        {
            throw new DmaException(Errno.Protocol, address);
        }

        payload[DmaAccessPayload.Bytes..].CopyTo(destination.Span);
        return got;
    }

    private static int TakeCount(VfioUserMessage reply, ulong address, int count)
    {
        RequireSuccess(reply, address);
        return reply.Payload.Length switch
        {
            0 or ShortHeadBytes => count,
            DmaAccessPayload.Bytes => Progress(reply.Read<DmaAccessPayload>(), address, count),
            _ => throw new DmaException(Errno.Protocol, address),
        };
    }

    /// <summary>A short answer is taken as far as it goes; one of nothing would go on for ever.</summary>
    private static int Progress(DmaAccessPayload head, ulong address, int asked) =>
        head.Address == address && head.Count > 0 && head.Count <= (ulong)asked
            ? (int)head.Count
            : throw new DmaException(head.Count == 0 ? Errno.InputOutput : Errno.Protocol, address);

    private static void RequireSuccess(VfioUserMessage reply, ulong address)
    {
        if ((reply.Header.Flags & MessageFlags.Error) != 0)
        {
            throw new DmaException(
                reply.Header.Error is > 0 and < 4096 ? (int)reply.Header.Error : Errno.InputOutput, address);
        }
    }

    private static DmaException Fail(VfioUserMessage reply, int errno, ulong address)
    {
        reply.Dispose();
        return new DmaException(errno, address);
    }
}

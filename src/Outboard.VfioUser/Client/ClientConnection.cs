// One connection of a client: commands out, replies back to whoever waits, and the server's own commands (on this
// socket or on the twin) answered from the windows that were mapped.
using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>A connection to a server.</summary>
internal sealed class ClientConnection : IAsyncDisposable
{
    private readonly SocketChannel _channel;
    private readonly ClientMemory _memory;
    private readonly TimeSpan _limit;
    private readonly ConcurrentDictionary<ushort, TaskCompletionSource<VfioUserMessage?>> _pending = [];
    private readonly Task _receiving;
    private SocketChannel? _twin;
    private Task _twinReceiving = Task.CompletedTask;
    private int _lastId;
    private volatile bool _isLost;

    internal ClientConnection(SocketChannel channel, ClientMemory memory, TimeSpan limit)
    {
        _channel = channel;
        _memory = memory;
        _limit = limit;
        _receiving = ReceiveAsync(channel);
    }

    /// <summary>Whether the server has gone.</summary>
    internal bool IsLost => _isLost;

    /// <summary>Ends when the server has gone.</summary>
    internal Task Loss => _receiving;

    /// <summary>What the server said in the negotiation.</summary>
    internal VersionCapabilities Server { get; private set; } = new();

    public async ValueTask DisposeAsync()
    {
        _channel.Close();
        _twin?.Close();
        await _receiving.ConfigureAwait(false);
        await _twinReceiving.ConfigureAwait(false);
        await _channel.DisposeAsync().ConfigureAwait(false);
        if (_twin is not null)
        {
            await _twin.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Agrees on version and capabilities.</summary>
    /// <exception cref="IOException">The server refuses, or what it says contradicts itself.</exception>
    internal async Task NegotiateAsync(VfioUserClientOptions options, CancellationToken cancellation)
    {
        VersionCapabilities own = new()
        {
            MaxMessageFds = VersionCapabilities.MaxMessageDescriptors,
            MaxDataTransferBytes = (ulong)options.MaxTransferBytes,
            WriteMultiple = true,
            MigrationPageBytes = VersionCapabilities.PageBytes,
            TwinSocket = options.WantsTwinSocket ? true : null,
        };
        byte[] payload =
            [.. Bytes(new VersionPayload(VersionCapabilities.Major, VersionCapabilities.Minor)), .. own.ToJson()];
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.Version, payload, null, cancellation).ConfigureAwait(false);
        if (reply.Payload.Length < VersionPayload.Bytes
            || reply.Read<VersionPayload>() is not { Major: VersionCapabilities.Major } version
            || version.Minor > VersionCapabilities.Minor)
        {
            throw new IOException("VERSION: the server speaks another version");
        }

        try
        {
            Server = VersionCapabilities.Parse(reply.Payload.Span[VersionPayload.Bytes..]);
        }
        catch (ProtocolException error)
        {
            throw new IOException(error.Message, error);
        }

        if (Server.TwinSocket == true)
        {
            if (Server.TwinSocketIndex is not { } index || index < 0 || index >= reply.Attachments.Count)
            {
                throw new IOException("VERSION: the server announces a second socket and sends none");
            }

            _twin = reply.Attachments[index].ToChannel();
            _twinReceiving = ReceiveAsync(_twin);
        }
    }

    /// <summary>Sends a command and waits for its reply, which the caller disposes.</summary>
    /// <exception cref="VfioUserException">The server refuses.</exception>
    /// <exception cref="IOException">The server is gone, or does not answer in time.</exception>
    internal async Task<VfioUserMessage> AskAsync(
        VfioUserCommand command, ReadOnlyMemory<byte> payload, Attachment[]? attachments,
        CancellationToken cancellation)
    {
        TaskCompletionSource<VfioUserMessage?> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        ushort id;
        do
        {
            id = (ushort)Interlocked.Increment(ref _lastId);
        }
        while (!_pending.TryAdd(id, answer));
        if (_isLost)
        {
            _pending.TryRemove(id, out _);
            throw Lost(command);
        }

        bool isTaken = false;
        try
        {
            await SendAsync(id, command, payload, attachments, cancellation)
                .WaitAsync(_limit, cancellation).ConfigureAwait(false);
            VfioUserMessage reply =
                await answer.Task.WaitAsync(_limit, cancellation).ConfigureAwait(false) ?? throw Lost(command);
            isTaken = true;
            return Checked(reply, command);
        }
        catch (TimeoutException error)
        {
            // an answer that comes later could be taken for another command's
            _channel.Close();
            throw new IOException($"{command}: no answer within {_limit}", error);
        }
        catch (ObjectDisposedException error)
        {
            throw new IOException($"{command}: the connection is closed", error);
        }
        finally
        {
            // Whoever gave up leaves its number taken until the reply has come; one that came just now is nobody's.
            if (!answer.TrySetCanceled(CancellationToken.None) && !isTaken)
            {
                (await answer.Task.ConfigureAwait(false))?.Dispose();
            }
        }
    }

    /// <summary>Sends a command that wants no reply.</summary>
    internal async Task PostAsync(VfioUserCommand command, ReadOnlyMemory<byte> payload)
    {
        ushort id = (ushort)Interlocked.Increment(ref _lastId);
        await _channel.SendAsync(id, command, MessageFlags.NoReply, payload).ConfigureAwait(false);
    }

    /// <summary>Sends a command; one that is not sent will have no reply.</summary>
    private async Task SendAsync(
        ushort id, VfioUserCommand command, ReadOnlyMemory<byte> payload, Attachment[]? attachments,
        CancellationToken cancellation)
    {
        try
        {
            await _channel.SendAsync(
                id, command, MessageFlags.None, payload, attachments, cancellation).ConfigureAwait(false);
        }
        catch
        {
            _pending.TryRemove(id, out _);
            throw;
        }
    }

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    private static IOException Lost(VfioUserCommand command) => new($"{command}: the server has gone");

    private static VfioUserMessage Checked(VfioUserMessage reply, VfioUserCommand command)
    {
        MessageHeader header = reply.Header;
        if ((header.Flags & MessageFlags.Error) != 0)
        {
            reply.Dispose();
            throw new VfioUserException(command, (int)header.Error);
        }

        if (header.Command != command)
        {
            reply.Dispose();
            throw new IOException($"{command}: the reply is one to {header.Command}");
        }

        return reply;
    }

    private async Task ReceiveAsync(SocketChannel channel)
    {
        try
        {
            while (await channel.ReceiveAsync().ConfigureAwait(false) is { } message)
            {
                if (message.Defect == MessageDefect.None && message.Header.IsCommand)
                {
                    await ServeAsync(channel, message).ConfigureAwait(false);
                }
                else if (message.Defect != MessageDefect.None
                    || !_pending.TryRemove(message.Header.Id, out TaskCompletionSource<VfioUserMessage?>? waiting))
                {
                    // no reply to anything: nothing that follows can be trusted
                    message.Dispose();
                    break;
                }
                else if (!waiting.TrySetResult(message))
                {
                    message.Dispose();
                }
            }
        }
        catch (IOException)
        {
            // the server is gone
        }

        if (ReferenceEquals(channel, _channel))
        {
            End();
        }
    }

    private void End()
    {
        _isLost = true;
        _channel.Close();
        foreach (ushort id in _pending.Keys)
        {
            if (_pending.TryRemove(id, out TaskCompletionSource<VfioUserMessage?>? waiting))
            {
                waiting.TrySetResult(null);
            }
        }
    }

    /// <summary>Answers DMA_READ and DMA_WRITE; other commands are not known to a client.</summary>
    private async Task ServeAsync(SocketChannel channel, VfioUserMessage message)
    {
        using (message)
        {
            int errno = Errno.NotImplemented;
            byte[] reply = [];
            bool isDma = message.Header.Command is VfioUserCommand.DmaRead or VfioUserCommand.DmaWrite
                && message.Payload.Length >= DmaAccessPayload.Bytes;
            if (isDma)
            {
                (errno, reply) = _memory.Serve(message);
            }

            if (message.Header.WantsReply)
            {
                MessageHeader header = new(
                    message.Header.Id, message.Header.Command, (uint)(MessageHeader.Bytes + reply.Length),
                    errno == 0 ? MessageFlags.Reply : MessageFlags.Reply | MessageFlags.Error, (uint)errno);
                byte[] bytes = [.. Bytes(header), .. reply];
                await channel.BeginSendingAsync().ConfigureAwait(false);
                try
                {
                    await channel.SendAsync(bytes).ConfigureAwait(false);
                }
                finally
                {
                    channel.EndSending();
                }
            }
        }
    }
}

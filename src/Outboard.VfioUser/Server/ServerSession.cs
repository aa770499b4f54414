// One client's connection. Two tasks: one receives, hands replies to whoever asked and puts commands in line; the other
// carries the commands out, one after another, and answers. A timer looks after both: a command that takes too long is
// answered as failed, so that a device that is stuck breaks nothing but itself.
//
// An ill-formed or refused command is answered with its error number; a broken stream or a failed negotiation ends the
// connection after that. A command that wants no reply has none, whatever becomes of it.
using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>Serves one client.</summary>
internal sealed partial class ServerSession : IAsyncDisposable
{
    /// <summary>
    /// Commands that may wait in line. QEMU posts up to 1024 writes before it bundles them; whoever sends more has to
    /// wait until there is room.
    /// </summary>
    private const int MaxWaiting = 2048;

    /// <summary>
    /// Payload bytes that may wait in line: some of the largest messages. Nothing more is received while there are
    /// more.
    /// </summary>
    private const long MaxWaitingBytes = 8 << 20;

    /// <summary>How often a full line is looked at again.</summary>
    private const int FullLineLookMs = 1;

    private readonly PciFunction _function;
    private readonly SocketChannel _channel;
    private readonly VfioUserServerOptions _options;
    private readonly ILogger _log;
    private readonly Channel<VfioUserMessage> _line = System.Threading.Channels.Channel.CreateBounded<VfioUserMessage>(
        new BoundedChannelOptions(MaxWaiting) { SingleReader = true, SingleWriter = true });

    private readonly ReplyBuffer _reply = new();
    private readonly ClientRequests _requests;
    private readonly DmaTable _dma;
    private readonly AnswerDeadline _deadline;

    private SocketChannel? _twin;
    private Task _twinReceiving = Task.CompletedTask;
    private EventWatcher? _watcher;
    private VersionCapabilities? _client;
    private long _waitingBytes;
    private volatile bool _hasEnded;

    internal ServerSession(PciFunction function, SocketChannel channel, VfioUserServerOptions options)
    {
        _function = function;
        _channel = channel;
        _options = options;
        _log = options.Logger;
        _requests = new ClientRequests(channel, options.RequestLimit);
        _dma = new DmaTable(_requests, options.MaxDmaMaps);
        _deadline = new AnswerDeadline(channel, options.AnswerLimit, _log);
    }

    /// <summary>Whether version and capabilities were agreed upon.</summary>
    internal bool IsNegotiated => _client is not null;

    /// <summary>Serves until the client goes away.</summary>
    /// <exception cref="ProtocolException">The client broke the protocol so that the connection has to end.</exception>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        using CancellationTokenRegistration registration = cancellation.Register(_channel.Close);
        Task executing = ExecuteAllAsync();
        try
        {
            await ReceiveAllAsync(_channel, cancellation).ConfigureAwait(false);
        }
        finally
        {
            _line.Writer.TryComplete();
            _requests.End();
            await executing.ConfigureAwait(false);
        }
    }

    /// <summary>Lets go of everything the client gave. The function's own state stays.</summary>
    public async ValueTask DisposeAsync()
    {
        _channel.Close();
        _twin?.Close();
        await _deadline.DisposeAsync().ConfigureAwait(false);
        await _twinReceiving.ConfigureAwait(false);
        if (IsNegotiated)
        {
            await _function.DetachAsync().ConfigureAwait(false);
        }

        _dma.Dirty.Dispose();
        ReleaseWatches();
        _watcher?.Dispose();
        foreach (DmaWindow window in _dma.RemoveAll())
        {
            window.Dispose();
        }

        if (_twin is not null)
        {
            await _twin.DisposeAsync().ConfigureAwait(false);
        }

        while (_line.Reader.TryRead(out VfioUserMessage? message))
        {
            message.Dispose();
        }

        _reply.Clear();
        await _channel.DisposeAsync().ConfigureAwait(false);
    }

    private async Task ReceiveAllAsync(SocketChannel channel, CancellationToken cancellation)
    {
        while (await channel.ReceiveAsync(cancellation).ConfigureAwait(false) is { } message)
        {
            if (message.Defect == MessageDefect.None && message.Header.IsReply && _requests.TryComplete(message))
            {
                continue;
            }

            bool isLast = message.Defect is MessageDefect.TooLong or MessageDefect.TooManyDescriptors;
            Interlocked.Add(ref _waitingBytes, message.Payload.Length);
            _deadline.Add(message);
            if (!_line.Writer.TryWrite(message))
            {
                try
                {
                    await _line.Writer.WriteAsync(message, cancellation).ConfigureAwait(false);
                }
                catch (ChannelClosedException)
                {
                    message.Dispose();
                    return;
                }
            }

            while (Volatile.Read(ref _waitingBytes) > MaxWaitingBytes && !_hasEnded)
            {
                await Task.Delay(FullLineLookMs, cancellation).ConfigureAwait(false);
            }

            if (isLast)
            {
                return;
            }
        }
    }

    private async Task ReceiveRepliesAsync(SocketChannel channel)
    {
        try
        {
            while (await channel.ReceiveAsync().ConfigureAwait(false) is { } message)
            {
                if (message.Defect != MessageDefect.None || !message.Header.IsReply || !_requests.TryComplete(message))
                {
                    _log.LogWarning("twin socket: message {Id} is no reply to a command", message.Header.Id);
                    message.Dispose();
                }
            }
        }
        catch (IOException error)
        {
            _log.LogWarning("twin socket: {Reason}", error.Message);
        }
    }

    private async Task ExecuteAllAsync()
    {
        try
        {
            while (await _line.Reader.WaitToReadAsync().ConfigureAwait(false))
            {
                while (_line.Reader.TryRead(out VfioUserMessage? message))
                {
                    if (!await ExecuteAsync(message).ConfigureAwait(false))
                    {
                        return;
                    }
                }
            }
        }
        catch (IOException error)
        {
            _log.LogDebug("the client does not take answers any more: {Reason}", error.Message);
        }
        finally
        {
            _hasEnded = true;
            _line.Writer.TryComplete();
            _channel.Close();
        }
    }

    /// <returns>Whether the connection goes on.</returns>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<bool> ExecuteAsync(VfioUserMessage message)
    {
        bool ends = false;
        int errno = 0;
        try
        {
            if (!message.IsAnswered)
            {
                Check(message);
                await DispatchAsync(message).ConfigureAwait(false);
            }
        }
        catch (ProtocolException refusal)
        {
            _log.LogWarning("refused: {Reason}", refusal.Message);
            errno = refusal.ErrorNumber;
            ends = refusal.IsFatal;
        }
        catch (IOException error)
        {
            _log.LogError("{Command}: {Reason}", message.Header.Command, error.Message);
            errno = Errno.InputOutput;
        }
#pragma warning disable CA1031 // A bug of the device's must not end the connection: this one command failed.
        catch (Exception error)
        {
            _log.LogCritical(error, "{Command}: this program failed", message.Header.Command);
            errno = Errno.InputOutput;
        }
#pragma warning restore CA1031
        try
        {
            await AnswerAsync(message, errno).ConfigureAwait(false);
        }
        finally
        {
            _deadline.RemoveFirst();
            Interlocked.Add(ref _waitingBytes, -message.Payload.Length);
            _reply.Clear();
            message.Dispose();
        }

        return !ends;
    }

    /// <summary>Answers, unless the client wants nothing or the deadline did it.</summary>
    private async ValueTask AnswerAsync(VfioUserMessage message, int errno)
    {
        MessageHeader header = message.Header;
        bool wantsReply = header.WantsReply || header.IsReply || message.Defect != MessageDefect.None;
        if (!wantsReply)
        {
            return;
        }

        await _channel.BeginSendingAsync().ConfigureAwait(false);
        try
        {
            if (message.IsAnswered)
            {
                return;
            }

            message.IsAnswered = true;
            if (errno != 0)
            {
                await _channel.SendAsync(AnswerDeadline.Failure(header, errno)).ConfigureAwait(false);
            }
            else
            {
                await _channel.SendAsync(_reply.Finish(header), _reply.Attachments).ConfigureAwait(false);
            }
        }
        finally
        {
            _channel.EndSending();
        }
    }

    /// <summary>Policy, from the table, before anything is done.</summary>
    private void Check(VfioUserMessage message)
    {
        MessageHeader header = message.Header;
        CommandRow? row = CommandTable.Find(header.Command);
        string name = row?.Name ?? $"command {(ushort)header.Command}";
        if (message.Defect != MessageDefect.None)
        {
            bool isFatal = message.Defect != MessageDefect.TooShort || !IsNegotiated;
            throw new ProtocolException(name, "size", $"{header.SizeBytes}: {message.Defect}") { IsFatal = isFatal };
        }

        if (!header.IsCommand)
        {
            throw new ProtocolException(name, "flags", $"0x{(uint)header.Flags:x}: no command, or a reply to nothing")
            {
                IsFatal = !IsNegotiated,
            };
        }

        if (header.Command != VfioUserCommand.Version != IsNegotiated)
        {
            throw new ProtocolException(name, "command", "VERSION comes first, and once") { IsFatal = !IsNegotiated };
        }

        if (row is null || row.Sender != CommandSender.Client)
        {
            throw new ProtocolException(name, "command", "not known");
        }

        int size = message.Payload.Length;
        if (size < row.MinBytes || size > row.MaxBytes)
        {
            throw new ProtocolException(name, "size", $"{size} bytes, the layout has {row.MinBytes} to {row.MaxBytes}")
            {
                IsFatal = !IsNegotiated,
            };
        }

        if (message.Attachments.Count > row.MaxDescriptors)
        {
            throw new ProtocolException(
                name, "descriptors", $"{message.Attachments.Count} came, at most {row.MaxDescriptors} belong to it")
            {
                IsFatal = !IsNegotiated,
            };
        }

        if (row.Gate == CommandGate.WriteMultiple && _client is not { WriteMultiple: true })
        {
            throw new ProtocolException(name, "command", "write_multiple was not negotiated");
        }
    }

    private ValueTask DispatchAsync(VfioUserMessage message) => message.Header.Command switch
    {
        VfioUserCommand.Version => Version(message),
        VfioUserCommand.DmaMap => DmaMapAsync(message),
        VfioUserCommand.DmaUnmap => DmaUnmapAsync(message),
        VfioUserCommand.DeviceGetInfo => DeviceGetInfo(message),
        VfioUserCommand.DeviceGetRegionInfo => DeviceGetRegionInfo(message),
        VfioUserCommand.DeviceGetRegionIoFds => DeviceGetRegionIoFds(message),
        VfioUserCommand.DeviceGetIrqInfo => DeviceGetIrqInfo(message),
        VfioUserCommand.DeviceSetIrqs => DeviceSetIrqs(message),
        VfioUserCommand.RegionRead => RegionRead(message),
        VfioUserCommand.RegionWrite => RegionWriteAsync(message),
        VfioUserCommand.DeviceReset => DeviceResetAsync(),
        VfioUserCommand.RegionWriteMulti => RegionWriteMultiAsync(message),
        VfioUserCommand.DeviceFeature => DeviceFeatureAsync(message),
        VfioUserCommand.MigDataRead => MigDataRead(message),
        VfioUserCommand.MigDataWrite => MigDataWrite(message),
        _ => throw new InvalidOperationException($"command {message.Header.Command} has a row and no arm"),
    };
}

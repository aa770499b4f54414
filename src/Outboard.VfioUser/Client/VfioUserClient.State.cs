// What a client gives its server, and gives again to the next: memory and interrupts. And the way back to a server that
// was lost.
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

public sealed partial class VfioUserClient
{
    /// <inheritdoc/>
    public override Task MapAsync(
        ulong guestAddress, FileSharedMemory memory, ulong offset, ulong sizeBytes,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memory);
        return MapAsync(guestAddress, memory.Descriptor, offset, sizeBytes, true, cancellation: cancellation);
    }

    /// <summary>Maps memory for the server, or (not shared) serves it by messages.</summary>
    /// <param name="guestAddress">Where the device finds it.</param>
    /// <param name="memory">The memory; the descriptor stays the caller's.</param>
    /// <param name="offset">Where it begins in the descriptor's file.</param>
    /// <param name="sizeBytes">Bytes.</param>
    /// <param name="isShared">Whether the server gets the descriptor.</param>
    /// <param name="flags">What the server may do.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    public async Task MapAsync(
        ulong guestAddress, FileDescriptor memory, ulong offset, ulong sizeBytes, bool isShared,
        DmaMapFlags flags = DmaMapFlags.Read | DmaMapFlags.Write, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ClientWindow window = new(guestAddress, sizeBytes, flags, memory.Duplicate(), offset, isShared);
        _memory.Add(window);
        try
        {
            await MapAsync(_connection, window, cancellation).ConfigureAwait(false);
        }
        catch
        {
            _memory.Remove(guestAddress, sizeBytes);
            throw;
        }
    }

    /// <inheritdoc/>
    public override async Task UnmapAsync(
        ulong guestAddress, ulong sizeBytes, CancellationToken cancellation = default)
    {
        DmaUnmapPayload unmap = new(DmaUnmapPayload.Bytes, DmaUnmapFlags.None, guestAddress, sizeBytes);
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.DmaUnmap, unmap, cancellation).ConfigureAwait(false);
        _memory.Remove(guestAddress, sizeBytes);
    }

    /// <inheritdoc/>
    public override async Task BindAsync(
        InterruptKind kind, int start, IReadOnlyList<EventFd>? events, CancellationToken cancellation = default)
    {
        if (events is null)
        {
            Remember((uint)kind, 0, null);
            await SetIrqsAsync(
                kind, SetIrqsFlags.DataNone | SetIrqsFlags.Trigger, 0, 0, cancellation).ConfigureAwait(false);
            return;
        }

        Remember((uint)kind, (uint)start, events);
        int most = Math.Max(1, Server.MaxMessageFds);
        for (int done = 0; done < events.Count; done += most)
        {
            EventFd[] part = [.. events.Skip(done).Take(most)];
            await BindAsync(_connection, (uint)kind, (uint)(start + done), part, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Masks, unmasks or triggers interrupts.</summary>
    /// <param name="kind">Of which kind.</param>
    /// <param name="flags">One action, with <see cref="SetIrqsFlags.DataNone"/>.</param>
    /// <param name="start">The first vector.</param>
    /// <param name="count">How many.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    public async Task SetIrqsAsync(
        InterruptKind kind, SetIrqsFlags flags, int start, int count, CancellationToken cancellation = default)
    {
        SetIrqsPayload set = new(SetIrqsPayload.Bytes, flags, (uint)kind, (uint)start, (uint)count);
        using VfioUserMessage reply =
            await AskAsync(VfioUserCommand.DeviceSetIrqs, set, cancellation).ConfigureAwait(false);
    }

    private static async Task MapAsync(
        ClientConnection connection, ClientWindow window, CancellationToken cancellation)
    {
        DmaMapPayload map = new(
            DmaMapPayload.Bytes, window.Flags, window.IsShared ? window.Offset : 0, window.Address, window.SizeBytes);
        Attachment[] attachments = window.IsShared ? [new Attachment(window.Memory.Duplicate())] : [];
        await AskWithAsync(connection, VfioUserCommand.DmaMap, Payload(map), attachments, cancellation)
            .ConfigureAwait(false);
    }

    private static async Task BindAsync(
        ClientConnection connection, uint index, uint start, EventFd[] events, CancellationToken cancellation)
    {
        SetIrqsPayload set = new(
            SetIrqsPayload.Bytes, SetIrqsFlags.DataEventFd | SetIrqsFlags.Trigger, index, start, (uint)events.Length);
        Attachment[] attachments =
            [.. events.Select(eventFd => new Attachment(eventFd.Descriptor.Duplicate()))];
        await AskWithAsync(connection, VfioUserCommand.DeviceSetIrqs, Payload(set), attachments, cancellation)
            .ConfigureAwait(false);
    }

    private static async Task AskWithAsync(
        ClientConnection connection, VfioUserCommand command, byte[] payload, Attachment[] attachments,
        CancellationToken cancellation)
    {
        try
        {
            using VfioUserMessage reply =
                await connection.AskAsync(command, payload, attachments, cancellation).ConfigureAwait(false);
        }
        finally
        {
            foreach (Attachment attachment in attachments)
            {
                attachment.Dispose();
            }
        }
    }

    private void Remember(uint index, uint start, IReadOnlyList<EventFd>? events)
    {
        lock (_bound)
        {
            foreach ((uint Index, uint Vector) key in _bound.Keys.Where(key => key.Index == index
                && (events is null || key.Vector - start < (uint)events.Count)).ToArray())
            {
                _bound[key].Dispose();
                _bound.Remove(key);
            }

            for (int i = 0; i < (events?.Count ?? 0); i++)
            {
                _bound[(index, start + (uint)i)] = new EventFd(events![i].Descriptor.Duplicate());
            }
        }
    }

    private async Task<VfioUserMessage> AskAsync(
        VfioUserCommand command, ReadOnlyMemory<byte> payload, Attachment[]? attachments,
        CancellationToken cancellation)
    {
        if (_connection.IsLost && _options.ReconnectLimit > TimeSpan.Zero)
        {
            await ReconnectAsync(cancellation).ConfigureAwait(false);
        }

        return await _connection.AskAsync(command, payload, attachments, cancellation).ConfigureAwait(false);
    }

    /// <summary>Connects to the next server, and gives it what the one before had.</summary>
    private async Task ReconnectAsync(CancellationToken cancellation)
    {
        await _reconnecting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (!_connection.IsLost)
            {
                return;
            }

            long deadline = Environment.TickCount64 + (long)_options.ReconnectLimit.TotalMilliseconds;
            while (true)
            {
                try
                {
                    await ReplaceConnectionAsync(cancellation).ConfigureAwait(false);
                    Reconnections++;
                    return;
                }
                catch (Exception error) when (error is IOException or SocketException
                    && Environment.TickCount64 < deadline)
                {
                    await Task.Delay(s_reconnectInterval, cancellation).ConfigureAwait(false);
                }
            }
        }
        catch (SocketException error)
        {
            throw new IOException($"the server does not come back: {error.Message}", error);
        }
        finally
        {
            _reconnecting.Release();
        }
    }

    private async Task ReplaceConnectionAsync(CancellationToken cancellation)
    {
        UnixSocket socket = await _connect(cancellation).ConfigureAwait(false);
        ClientConnection fresh = new(new SocketChannel(socket), _memory, _options.AnswerLimit);
        try
        {
            await fresh.NegotiateAsync(_options, cancellation).ConfigureAwait(false);
            KeyValuePair<(uint Index, uint Vector), EventFd>[] bound;
            lock (_bound)
            {
                bound = [.. _bound];
            }

            foreach (((uint index, uint vector), EventFd eventFd) in bound)
            {
                await BindAsync(fresh, index, vector, [eventFd], cancellation).ConfigureAwait(false);
            }

            // memory comes last: with it a device may go on at once, and then interrupts
            foreach (ClientWindow window in _memory.Snapshot())
            {
                await MapAsync(fresh, window, cancellation).ConfigureAwait(false);
            }
        }
        catch
        {
            await fresh.DisposeAsync().ConfigureAwait(false);
            throw;
        }

        ClientConnection old = _connection;
        _connection = fresh;
        ForgetBars();
        await old.DisposeAsync().ConfigureAwait(false);
    }
}

// The other half of vfio-user: a client, for drivers and tools without a virtual machine.
//
// The client remembers what it gave the server: windows of memory and bound interrupts. A server that was lost (killed,
// restarted) is connected to again when the options say so, and gets all of that again; the command that found it out
// fails, since nobody knows how far it came. What the device itself remembers is the server's affair.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>A vfio-user client. All members may be called from any thread.</summary>
public sealed partial class VfioUserClient : PciHandle, IAsyncDisposable
{
    /// <summary>How often a lost server is looked for.</summary>
    private static readonly TimeSpan s_reconnectInterval = TimeSpan.FromMilliseconds(20);

    private readonly Func<CancellationToken, Task<UnixSocket>> _connect;
    private readonly VfioUserClientOptions _options;
    private readonly ClientMemory _memory = new();
    private readonly Dictionary<(uint Index, uint Vector), EventFd> _bound = [];
    private readonly SemaphoreSlim _reconnecting = new(1);
    private ClientConnection _connection;

    private VfioUserClient(
        Func<CancellationToken, Task<UnixSocket>> connect, VfioUserClientOptions options, UnixSocket socket)
    {
        _connect = connect;
        _options = options;
        _connection = new ClientConnection(new SocketChannel(socket), _memory, options.AnswerLimit);
    }

    /// <summary>How often a lost server was connected to again.</summary>
    public int Reconnections { get; private set; }

    /// <summary>What the server said in the negotiation.</summary>
    public VersionCapabilities Server => _connection.Server;

    /// <summary>Connects to a server and agrees on a version.</summary>
    /// <exception cref="IOException">Nobody listens there, or the server refuses.</exception>
    public static Task<VfioUserClient> ConnectAsync(
        string socketPath, VfioUserClientOptions? options = null, CancellationToken cancellation = default) =>
        StartAsync(token => UnixSocket.ConnectAsync(socketPath, token), options, cancellation);

    /// <summary>Takes a connected socket; such a client does not connect again.</summary>
    public static Task<VfioUserClient> StartAsync(
        UnixSocket socket, VfioUserClientOptions? options = null, CancellationToken cancellation = default) =>
        StartAsync(
            _ => Task.FromResult(socket), (options ?? new()) with { ReconnectLimit = TimeSpan.Zero }, cancellation);

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _connection.DisposeAsync().ConfigureAwait(false);
        _memory.Dispose();
        ForgetBars();
        _reconnecting.Dispose();
        foreach (EventFd eventFd in _bound.Values)
        {
            eventFd.Dispose();
        }
    }

    /// <summary>Asks what the device is.</summary>
    public async Task<DeviceInfoPayload> GetInfoAsync(CancellationToken cancellation = default)
    {
        using VfioUserMessage reply = await AskAsync(
            VfioUserCommand.DeviceGetInfo, new DeviceInfoPayload(DeviceInfoPayload.Bytes, 0, 0, 0), cancellation)
            .ConfigureAwait(false);
        return Head<DeviceInfoPayload>(reply);
    }

    /// <summary>Asks about a region; the caller disposes the answer.</summary>
    public async Task<RegionInfo> GetRegionInfoAsync(int region, CancellationToken cancellation = default)
    {
        uint argsz = RegionInfoPayload.Bytes;
        while (true)
        {
            using VfioUserMessage reply = await AskAsync(
                VfioUserCommand.DeviceGetRegionInfo, new RegionInfoPayload(argsz, 0, (uint)region, 0, 0, 0),
                cancellation).ConfigureAwait(false);
            RegionInfoPayload head = Head<RegionInfoPayload>(reply);
            if (head.Argsz <= argsz || head.Argsz > MessageHeader.MaxPayloadBytes)
            {
                return ReadRegionInfo(head, reply);
            }

            argsz = head.Argsz;
        }
    }

    /// <summary>Asks about interrupts of one kind.</summary>
    public async Task<IrqInfoPayload> GetIrqInfoAsync(InterruptKind kind, CancellationToken cancellation = default)
    {
        using VfioUserMessage reply = await AskAsync(
            VfioUserCommand.DeviceGetIrqInfo, new IrqInfoPayload(IrqInfoPayload.Bytes, 0, (uint)kind, 0), cancellation)
            .ConfigureAwait(false);
        return Head<IrqInfoPayload>(reply);
    }

    /// <inheritdoc/>
    public override async Task<int> CountVectorsAsync(InterruptKind kind, CancellationToken cancellation = default) =>
        (int)(await GetIrqInfoAsync(kind, cancellation).ConfigureAwait(false)).Count;

    /// <inheritdoc/>
    public override async Task ReadAsync(
        int region, ulong offset, Memory<byte> destination, CancellationToken cancellation = default)
    {
        while (!destination.IsEmpty)
        {
            int count = Part(destination.Length);
            RegionAccessPayload access = new(offset, (uint)region, (uint)count);
            using VfioUserMessage reply =
                await AskAsync(VfioUserCommand.RegionRead, access, cancellation).ConfigureAwait(false);
            if (reply.Payload.Length != RegionAccessPayload.Bytes + count)
            {
                throw new IOException($"REGION_READ: {reply.Payload.Length} bytes came for {count}");
            }

            reply.Payload[RegionAccessPayload.Bytes..].CopyTo(destination);
            destination = destination[count..];
            offset += (uint)count;
        }
    }

    /// <inheritdoc/>
    public override async Task WriteAsync(
        int region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation = default)
    {
        while (!source.IsEmpty)
        {
            int count = Part(source.Length);
            byte[] payload =
                Payload(new RegionAccessPayload(offset, (uint)region, (uint)count), source.Span[..count]);
            using VfioUserMessage reply =
                await AskAsync(VfioUserCommand.RegionWrite, payload, null, cancellation).ConfigureAwait(false);
            source = source[count..];
            offset += (uint)count;
        }
    }

    /// <inheritdoc/>
    public override void Post(int region, ulong offset, ReadOnlySpan<byte> source)
    {
        if (TryRing(region, offset, source))
        {
            return;
        }

        byte[] payload = Payload(new RegionAccessPayload(offset, (uint)region, (uint)source.Length), source);
        _connection.PostAsync(VfioUserCommand.RegionWrite, payload).GetAwaiter().GetResult();
    }

    /// <inheritdoc/>
    public override Task WaitForLossAsync(CancellationToken cancellation) =>
        _connection.Loss.WaitAsync(cancellation);

    /// <inheritdoc/>
    public override async Task ResetAsync(CancellationToken cancellation = default)
    {
        using VfioUserMessage reply = await AskAsync(
            VfioUserCommand.DeviceReset, ReadOnlyMemory<byte>.Empty, null, cancellation).ConfigureAwait(false);
    }

    private static async Task<VfioUserClient> StartAsync(
        Func<CancellationToken, Task<UnixSocket>> connect, VfioUserClientOptions? options,
        CancellationToken cancellation)
    {
        options ??= new VfioUserClientOptions();
        UnixSocket socket;
        try
        {
            socket = await connect(cancellation).ConfigureAwait(false);
        }
        catch (System.Net.Sockets.SocketException error)
        {
            throw new IOException(error.Message, error);
        }

        VfioUserClient client = new(connect, options, socket);
        try
        {
            await client._connection.NegotiateAsync(options, cancellation).ConfigureAwait(false);
            return client;
        }
        catch
        {
            await client.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static RegionInfo ReadRegionInfo(RegionInfoPayload head, VfioUserMessage reply)
    {
        List<BarArea> areas = [];
        ReadOnlySpan<byte> payload = reply.Payload.Span;
        int at = (head.Flags & RegionFlags.Capabilities) != 0 ? (int)head.CapabilityOffset : 0;

        // each link leads on, so that a chain cannot go round
        while (at >= RegionInfoPayload.Bytes && at + SparseMmapPayload.Bytes <= payload.Length)
        {
            SparseMmapPayload capability = MemoryMarshal.Read<SparseMmapPayload>(payload[at..]);
            ReadOnlySpan<byte> rest = payload[(at + SparseMmapPayload.Bytes)..];
            for (int i = 0; capability.Id == SparseMmapPayload.SparseMmapId && i < capability.AreaCount
                && (i + 1) * SparseMmapPayload.AreaBytes <= rest.Length; i++)
            {
                areas.Add(MemoryMarshal.Read<BarArea>(rest[(i * SparseMmapPayload.AreaBytes)..]));
            }

            at = capability.Next > at ? (int)Math.Min(capability.Next, int.MaxValue / 2) : 0;
        }

        bool isMappable = (head.Flags & RegionFlags.Mmap) != 0;
        if (isMappable && areas.Count == 0)
        {
            areas.Add(new BarArea(0, head.SizeBytes));
        }

        return new RegionInfo(head.Flags, head.SizeBytes, head.Offset)
        {
            Areas = areas,
            Memory = isMappable && reply.Attachments.Count > 0 ? reply.Attachments[0].ToSharedMemory() : null,
        };
    }

    private static T Head<T>(VfioUserMessage reply)
        where T : unmanaged =>
        reply.Payload.Length >= Payload(default(T)).Length
            ? reply.Read<T>()
            : throw new IOException($"{reply.Header.Command}: a reply of {reply.Payload.Length} bytes is too short");

    private static byte[] Payload<T>(T head, params ReadOnlySpan<byte> rest)
        where T : unmanaged
    {
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in head));
        byte[] payload = new byte[bytes.Length + rest.Length];
        bytes.CopyTo(payload);
        rest.CopyTo(payload.AsSpan(bytes.Length));
        return payload;
    }

    private int Part(int length) =>
        (int)Math.Min((ulong)length, Math.Min(Server.MaxDataTransferBytes, VersionCapabilities.MaxTransferBytes));

    private Task<VfioUserMessage> AskAsync<T>(VfioUserCommand command, T head, CancellationToken cancellation)
        where T : unmanaged => AskAsync(command, Payload(head), null, cancellation);
}

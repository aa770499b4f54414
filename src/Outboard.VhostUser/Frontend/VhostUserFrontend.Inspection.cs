// Asking a back-end what it offers, and nothing else. Only questions are asked whose feature was offered, in sizes that
// the device has; no session is taken, no memory given, no feature set but those protocol features that the questions
// need. What a back-end does when the connection ends is its own affair: some serve one front-end and end with it.
using System.Buffers.Binary;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    private const ProtocolFeatures AskedFeatures =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.Config | ProtocolFeatures.ConfigureMemSlots
        | ProtocolFeatures.Shmem;

    /// <summary>Bytes before the sizes in the reply of GET_SHMEM_CONFIG: a count u32, padding u32.</summary>
    private const int ShmemHeadBytes = 8;

    /// <summary>Connects to a back-end, asks what it offers, and leaves.</summary>
    /// <param name="socketPath">Where it listens.</param>
    /// <param name="device">The type of the device, if known; otherwise it is guessed from the features.</param>
    /// <param name="options">Only the time limit is used.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="System.Net.Sockets.SocketException">Nobody listens there.</exception>
    /// <exception cref="ProtocolException">It does not answer the first questions.</exception>
    public static async Task<BackendOffer> InspectAsync(
        string socketPath,
        VirtioDeviceId? device = null,
        VhostUserFrontendOptions? options = null,
        CancellationToken cancellation = default)
    {
        UnixSocket socket = await UnixSocket.ConnectAsync(socketPath, cancellation).ConfigureAwait(false);
        VhostUserFrontend frontend = new(new SocketChannel(socket), options);
        await using (frontend.ConfigureAwait(false))
        {
            return await frontend.InspectAsync(device, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Asks what the back-end offers, on a connection where nothing was said before.</summary>
    /// <param name="device">The type of the device, if known; otherwise it is guessed from the features.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ProtocolException">It does not answer the first questions.</exception>
    public async Task<BackendOffer> InspectAsync(
        VirtioDeviceId? device = null, CancellationToken cancellation = default)
    {
        ulong features = await GetFeaturesAsync(cancellation).ConfigureAwait(false);
        VirtioDeviceId? guess = device ?? FeatureNames.Guess(features);
        BackendOffer offer = new()
        {
            Features = features,
            Device = guess,
            IsDeviceGuessed = device is null && guess is not null,
        };
        if ((features & VirtioFeatures.ProtocolFeatures) == 0)
        {
            return offer;
        }

        ProtocolFeatures offered = await GetProtocolFeaturesAsync(cancellation).ConfigureAwait(false);
        await SetProtocolFeaturesAsync(offered & AskedFeatures, cancellation).ConfigureAwait(false);
        List<string> problems = [];
        ulong? queues = await AskAsync(
            ProtocolFeatures.MultiQueue, () => GetQueueNumAsync(cancellation), problems).ConfigureAwait(false);
        ulong? slots = await AskAsync(
            ProtocolFeatures.ConfigureMemSlots, () => GetMaxMemSlotsAsync(cancellation), problems)
            .ConfigureAwait(false);
        Dictionary<int, ulong>? shared = await AskForAsync(
            ProtocolFeatures.Shmem, () => SharedMemorySizesAsync(cancellation), problems).ConfigureAwait(false);
        return offer with
        {
            ProtocolFeatures = offered,
            QueueCount = queues,
            MemorySlots = slots,
            SharedMemory = shared,
            Config = await AskForAsync(
                ProtocolFeatures.Config, () => ConfigOfAsync(offer, cancellation), problems).ConfigureAwait(false),
            Problems = problems,
        };
    }

    /// <summary>A refusal is told, and ends nothing; a connection that has ended answers no further question.</summary>
    private async Task<T?> AskForAsync<T>(ProtocolFeatures gate, Func<Task<T?>> ask, List<string> problems)
        where T : class
    {
        if (!Has(gate) || _brokenBy is not null)
        {
            return null;
        }

        try
        {
            return await ask().ConfigureAwait(false);
        }
        catch (ProtocolException error)
        {
            problems.Add(error.Message);
            return null;
        }
    }

    private async Task<ulong?> AskAsync(ProtocolFeatures gate, Func<Task<ulong>> ask, List<string> problems) =>
        (ulong?)await AskForAsync<object>(gate, async () => await ask().ConfigureAwait(false), problems)
            .ConfigureAwait(false);

    private async Task<byte[]?> ConfigOfAsync(BackendOffer offer, CancellationToken cancellation)
    {
        if (offer.Device is not { } device || DeviceConfigLayouts.Of(device) is not { } layout)
        {
            return null;
        }

        HashSet<string> offered = [.. FeatureNames.Device(offer.Features, device)];
        int size = layout.SizeWith(offered);
        return size > 0 ? await GetConfigAsync(0, size, cancellation).ConfigureAwait(false) : null;
    }

    private async Task<Dictionary<int, ulong>?> SharedMemorySizesAsync(CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> reply =
            await RequestAsync(FrontendRequest.GetShmemConfig, [], cancellation).ConfigureAwait(false);
        if (reply.Length < ShmemHeadBytes || reply.Length % sizeof(ulong) != 0)
        {
            throw new ProtocolException("GET_SHMEM_CONFIG", "size", $"{reply.Length} bytes of reply");
        }

        Dictionary<int, ulong> sizes = [];
        for (int at = ShmemHeadBytes; at < reply.Length; at += sizeof(ulong))
        {
            if (BinaryPrimitives.ReadUInt64LittleEndian(reply.Span[at..]) is > 0 and ulong size)
            {
                sizes[(at - ShmemHeadBytes) / sizeof(ulong)] = size;
            }
        }

        return sizes;
    }
}

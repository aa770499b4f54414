// One front-end's connection: receives a request, checks it against the table, carries it out, answers. Requests are
// carried out one after another; the data plane runs beside them on workers.
//
// An ill-formed or refused request is answered with a non-zero u64 when the front-end asked for a reply; otherwise the
// connection ends, since the front-end would go on in the belief that it was carried out.
// Not here: what each group of requests does, which is in the other files of this class.
using Microsoft.Extensions.Logging;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>Serves one front-end.</summary>
internal sealed partial class BackendSession : IAsyncDisposable
{
    /// <summary>
    /// Feature bits that front-ends set although nobody offered them, and that change nothing for a back-end: QEMU sets
    /// VIRTIO_F_RING_RESET on some devices.
    /// </summary>
    private const ulong ToleratedFeatures = VirtioFeatures.RingReset;

    private const ProtocolFeatures BuiltProtocolFeatures =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.BackendReq | ProtocolFeatures.Config
        | ProtocolFeatures.ResetDevice | ProtocolFeatures.ConfigureMemSlots | ProtocolFeatures.Status
        | ProtocolFeatures.InflightShmFd | ProtocolFeatures.GetVringBaseInflight
        | ProtocolFeatures.GetVringBaseSkipDrain | ProtocolFeatures.LogShmFd | ProtocolFeatures.Rarp
        | ProtocolFeatures.NetMtu | ProtocolFeatures.DeviceState | ProtocolFeatures.PageFault
        | ProtocolFeatures.GpaAddresses | ProtocolFeatures.BackendSendFd | ProtocolFeatures.HostNotifier
        | ProtocolFeatures.Shmem;

    private readonly VirtioDevice _device;
    private readonly VhostUserChannel _channel;
    private readonly VhostUserBackendOptions _options;
    private readonly ILogger _log;
    private readonly Vring[] _vrings;
    private readonly QueueWorkerSet _workers;
    private readonly int _firstWorker;
    private readonly ulong _offeredFeatures;
    private readonly ProtocolFeatures _offeredProtocolFeatures;

    private ulong _features;
    private ProtocolFeatures _protocolFeatures;
    private volatile bool _needsReset;
    private volatile Exception? _failure;
    private VirtioStatus _status;
    private bool _featuresRefused;

    internal BackendSession(VirtioDevice device, VhostUserChannel channel, VhostUserBackendOptions options)
    {
        _device = device;
        _channel = channel;
        _options = options;
        _log = options.Logger;
        _vrings = [.. Enumerable.Range(0, device.QueueCount).Select(index => new Vring(index))];
        _workers = options.Workers ?? OwnWorkers(device, options);
        _firstWorker = _workers.Share(device.QueueCount);
        _offeredProtocolFeatures = (BuiltProtocolFeatures | OptionalFeatures(device, options))
            & ~options.WithheldProtocolFeatures & ~WithoutRegions(device)
            & ~(device is INetworkLink ? ProtocolFeatures.None : NetworkFeatures)
            & ~(options.Workers is null ? ProtocolFeatures.None : WaitingFeatures);
        if ((_offeredProtocolFeatures & ProtocolFeatures.InflightShmFd) == 0)
        {
            // There is nowhere to leave requests.
            _offeredProtocolFeatures &=
                ~(ProtocolFeatures.GetVringBaseInflight | ProtocolFeatures.GetVringBaseSkipDrain);
        }

        _offeredFeatures = (device.DeviceFeatures | VirtioFeatures.OfferedByRings | VirtioFeatures.ProtocolFeatures
            | (options.AdditionalFeatures & VirtioFeatures.OfferedOnRequest)
            | IommuFeature(_offeredProtocolFeatures)) & ~options.WithheldFeatures;
        if ((_offeredProtocolFeatures & ProtocolFeatures.LogShmFd) != 0)
        {
            _offeredFeatures |= VirtioFeatures.LogAll & ~options.WithheldFeatures;
        }

        device.ConfigChanged += OnConfigChanged;
        device.NeedsReset += OnNeedsReset;
        AttachSharedRegions();
    }

    /// <summary>Serves until the front-end goes away.</summary>
    /// <exception cref="ProtocolException">The front-end broke the protocol in a way that no reply can
    /// answer.</exception>
    /// <exception cref="InvariantException">This program broke.</exception>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        while (await _channel.ReceiveAsync(cancellation).ConfigureAwait(false) is { } message)
        {
            using (message)
            {
                await HandleAsync(message, cancellation).ConfigureAwait(false);
            }
        }

        if (_failure is { } failure)
        {
            throw new InvariantException($"the device failed: {failure}");
        }
    }

    /// <summary>
    /// Stops all rings and lets go of everything the front-end gave. What is in flight comes to its end, unless it is
    /// recorded: then it is the next back-end's.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        _device.ConfigChanged -= OnConfigChanged;
        _device.NeedsReset -= OnNeedsReset;
        EndPostcopyOfNobody();
        DetachSharedRegions();
        await StopAllAsync(SuspendOf).ConfigureAwait(false);
        await EndAnswersAsync().ConfigureAwait(false);
        if (_options.Workers is null)
        {
            await _workers.DisposeAsync().ConfigureAwait(false);
        }

        foreach (Vring vring in _vrings)
        {
            vring.Dispose();
        }

        foreach (MemoryRegion region in _memory.Regions)
        {
            region.Dispose();
        }

        _inflight?.Dispose();
        DisposeLog();
        EndPostcopy();
        await EndTransferAsync().ConfigureAwait(false);
        EndSharedObjects();
        await _backendChannel.DisposeAsync().ConfigureAwait(false);
        await _channel.DisposeAsync().ConfigureAwait(false);
        _device.Reset();
    }

    private static QueueWorkerSet OwnWorkers(VirtioDevice device, VhostUserBackendOptions options)
    {
        int count = options.WorkerCount > 0
            ? options.WorkerCount
            : Math.Clamp(device.QueueCount, 1, Environment.ProcessorCount);
        return new QueueWorkerSet(count, $"{device.Id}", options.Worker);
    }

    private async Task HandleAsync(VhostUserMessage message, CancellationToken cancellation)
    {
        RequestRow? row = RequestTable.Frontend(message.Request);
        try
        {
            RequireAcknowledgement(message);
            await AnswerEarlierAsync(message).ConfigureAwait(false);
            Check(message, row);
            Reply reply = _listensForPages
                ? await DispatchInPostcopyAsync(message).ConfigureAwait(false)
                : await DispatchAsync(message).ConfigureAwait(false);
            await AnswerAsync(message, reply, cancellation).ConfigureAwait(false);
        }
        catch (ProtocolException refusal)
        {
            byte[]? failure = refusal.IsFatal ? null : FailureOf(message, row);
            _log.LogWarning("{Outcome}: {Reason}", failure is null ? "connection closed" : "refused", refusal.Message);
            if (failure is null)
            {
                throw;
            }

            await SendReplyAsync(message, failure, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>The reply that tells a failure; null when none can.</summary>
    private byte[]? FailureOf(VhostUserMessage message, RequestRow? row)
    {
        if (row is { HasOwnReply: true })
        {
            return FailureReplies.Of((FrontendRequest)message.Request);
        }

        bool mayAcknowledge = message.NeedsReply && (_protocolFeatures & ProtocolFeatures.ReplyAck) != 0;
        return mayAcknowledge ? VhostUserMessage.PayloadOf(1UL) : null;
    }

    /// <summary>Policy, from the table, before anything is done.</summary>
    private void Check(VhostUserMessage message, RequestRow? row)
    {
        if (row is null)
        {
            throw new ProtocolException($"request {message.Request}", "request", "not supported");
        }

        if ((message.Flags & MessageFlags.Reply) != 0)
        {
            throw new ProtocolException(row.Name, "flags", "a reply where a request is due") { IsFatal = true };
        }

        if (!row.Size.Allows((uint)message.Payload.Length))
        {
            throw new ProtocolException(row.Name, "size", $"{message.Payload.Length} bytes, the layout has {row.Size}");
        }

        if (message.Attachments.Count > row.MaxDescriptors)
        {
            throw new ProtocolException(
                row.Name, "descriptors",
                    $"{message.Attachments.Count} came, at most {row.MaxDescriptors} belong to it");
        }

        if ((row.Gate & ~_protocolFeatures) != 0)
        {
            throw new ProtocolException(row.Name, "request", $"protocol feature {row.Gate} was not negotiated");
        }
    }

    private async ValueTask<Reply> DispatchAsync(VhostUserMessage message) => (FrontendRequest)message.Request switch
    {
        FrontendRequest.GetFeatures => GetFeatures(),
        FrontendRequest.SetFeatures => await SetFeaturesAsync(message).ConfigureAwait(false),
        FrontendRequest.SetOwner => SetOwner(),
        FrontendRequest.ResetOwner => await ResetOwnerAsync().ConfigureAwait(false),
        FrontendRequest.SetMemTable => await SetMemTableAsync(message).ConfigureAwait(false),
        FrontendRequest.SetLogBase => await SetLogBaseAsync(message).ConfigureAwait(false),
        FrontendRequest.SetLogFd => await SetLogFdAsync(message).ConfigureAwait(false),
        FrontendRequest.SetVringNum => SetVringNum(message),
        FrontendRequest.SetVringAddr => await SetVringAddrAsync(message).ConfigureAwait(false),
        FrontendRequest.SetVringBase => SetVringBase(message),
        FrontendRequest.GetVringBase => await GetVringBaseAsync(message).ConfigureAwait(false),
        FrontendRequest.GetVringBaseSkipDrain => await GetVringBaseSkipDrainAsync(message).ConfigureAwait(false),
        FrontendRequest.SetVringKick => await SetVringKickAsync(message).ConfigureAwait(false),
        FrontendRequest.SetVringCall => await SetVringCallAsync(message).ConfigureAwait(false),
        FrontendRequest.SetVringErr => SetVringErr(message),
        FrontendRequest.GetProtocolFeatures => GetProtocolFeatures(),
        FrontendRequest.SetProtocolFeatures => SetProtocolFeatures(message),
        FrontendRequest.GetQueueNum => GetQueueNum(),
        FrontendRequest.SetVringEnable => await SetVringEnableAsync(message).ConfigureAwait(false),
        FrontendRequest.SetBackendReqFd => await SetBackendReqFdAsync(message).ConfigureAwait(false),
        FrontendRequest.IotlbMsg => IotlbMsg(message),
        FrontendRequest.SendRarp => SendRarp(message),
        FrontendRequest.NetSetMtu => NetSetMtu(message),
        FrontendRequest.SetDeviceStateFd => await SetDeviceStateFdAsync(message).ConfigureAwait(false),
        FrontendRequest.CheckDeviceState => await CheckDeviceStateAsync().ConfigureAwait(false),
        FrontendRequest.SetVringEndian => SetVringEndian(message),
        FrontendRequest.PostcopyAdvise => PostcopyAdvise(),
        FrontendRequest.PostcopyListen => PostcopyListen(),
        FrontendRequest.PostcopyEnd => PostcopyEnd(),
        FrontendRequest.GetConfig => GetConfig(message),
        FrontendRequest.GetIdentity => GetIdentity(),
        FrontendRequest.GetQueueLimit => GetQueueLimit(message),
        FrontendRequest.GetIovaRange => GetIovaRange(),
        FrontendRequest.Suspend => await SuspendAsync().ConfigureAwait(false),
        FrontendRequest.Resume => await ResumeAsync().ConfigureAwait(false),
        FrontendRequest.GetQueueState => await GetQueueStateAsync(message).ConfigureAwait(false),
        FrontendRequest.ReadConfig => ReadConfig(message),
        FrontendRequest.WriteConfig => WriteConfig(message),
        FrontendRequest.SetConfig => SetConfig(message),
        FrontendRequest.CreateCryptoSession => CreateCryptoSession(message),
        FrontendRequest.CloseCryptoSession => CloseCryptoSession(message),
        FrontendRequest.GetInflightFd => GetInflightFd(message),
        FrontendRequest.SetInflightFd => SetInflightFd(message),
        FrontendRequest.GpuSetSocket => GpuSetSocket(message),
        FrontendRequest.ResetDevice => await ResetDeviceAsync().ConfigureAwait(false),
        FrontendRequest.VringKick => await VringKickAsync(message).ConfigureAwait(false),
        FrontendRequest.GetMaxMemSlots => GetMaxMemSlots(),
        FrontendRequest.AddMemReg => await AddMemRegAsync(message).ConfigureAwait(false),
        FrontendRequest.RemMemReg => await RemMemRegAsync(message).ConfigureAwait(false),
        FrontendRequest.GetShmemConfig => GetShmemConfig(),
        FrontendRequest.SetStatus => await SetStatusAsync(message).ConfigureAwait(false),
        FrontendRequest.GetStatus => GetStatus(),
        FrontendRequest.GetSharedObject => GetSharedObject(message),
        _ => throw new InvariantException($"request {message.Request} has a row and no arm"),
    };

    private async Task AnswerAsync(VhostUserMessage message, Reply reply, CancellationToken cancellation)
    {
        if (reply.Later is { } later)
        {
            AnswerLater(message, later, cancellation);
        }
        else if (reply.OwnPayload is { } payload)
        {
            await SendReplyAsync(message, payload, cancellation, reply.Attachments).ConfigureAwait(false);
        }
        else if (message.NeedsReply && (_protocolFeatures & ProtocolFeatures.ReplyAck) != 0)
        {
            await SendReplyAsync(message, VhostUserMessage.PayloadOf(0UL), cancellation).ConfigureAwait(false);
        }
    }

    private ValueTask SendReplyAsync(
        VhostUserMessage request, byte[] payload, CancellationToken cancellation, params Attachment[] attachments) =>
        _channel.SendAsync(new VhostUserMessage(
            request.Request, MessageFlags.Reply, payload, attachments), cancellation);

    /// <summary>Called on a worker's thread: this program broke. The session ends.</summary>
    private void OnFailed(int queue, Exception error)
    {
        _failure ??= error;
        _log.LogCritical(error, "queue {Queue}: this program failed; the session ends", queue);
        _channel.Close();
    }

    /// <summary>Called on a worker's thread: the driver broke its ring, which is parked until reset.</summary>
    private void OnFaulted(int queue, VirtqueueFault fault)
    {
        _needsReset = true;
        _vrings[queue].IsBroken = true;
        _log.LogWarning(
            "queue {Queue}: the driver broke the ring ({Fault}); it is not served until reset", queue, fault);
        _vrings[queue].SignalError();
    }
}

// Live migration as a front-end drives it, first part: the dirty log. The order is QEMU's: the log, the feature bit,
// then each ring; and back.
//
//   log = StartLoggingAsync(queues)
//   copy all memory; then, again and again: copy the pages of log.Harvest(), until few are left
//   StopQueueAsync for each queue; copy the pages of the last log.Harvest(); StopLoggingAsync
//
// Not here: copying. That is the business of whoever owns the guest.
using Outboard.Linux.Events;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>Whether the back-end was told to log what it writes.</summary>
    public bool IsLogging => (Features & VirtioFeatures.LogAll) != 0;

    /// <summary>
    /// Makes a log for guest addresses below <paramref name="end"/>. The back-end does not know it yet.
    /// </summary>
    public FrontendLog CreateLog(ulong end)
    {
        ulong bytes = Memory.DirtyLog.BytesFor(end);
        return new FrontendLog(_channel.CreateSharedMemory("outboard-log", bytes), bytes);
    }

    /// <summary>SET_LOG_BASE: the back-end marks there from the reply on; not before logging is switched on.</summary>
    public async Task SetLogBaseAsync(FrontendLog log, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(log);
        byte[] payload = VhostUserMessage.PayloadOf(new LogPayload(log.SizeBytes, 0));

        // Peers answer with whatever payload: the specification has none.
        await RequestAsync(FrontendRequest.SetLogBase, payload, cancellation, _channel.Attach(log.Memory))
            .ConfigureAwait(false);
        State.Log = log;
    }

    /// <summary>SET_LOG_FD: what the back-end signals after it marked pages.</summary>
    public async Task SetLogFdAsync(EventFd marked, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(marked);
        DescriptorAttachment attachment = new(marked.Descriptor.Duplicate());
        await RequestAsync(FrontendRequest.SetLogFd, [], cancellation, attachment).ConfigureAwait(false);
        State.LogMarked = marked;
    }

    /// <summary>Switches logging on, of buffers and of these rings, which may be running.</summary>
    /// <param name="queues">The queues that were started.</param>
    /// <param name="tells">Whether the back-end signals <see cref="FrontendLog.Marked"/>.</param>
    /// <param name="cancellation">Gives up waiting for replies.</param>
    /// <returns>The log, the caller's to dispose after <see cref="StopLoggingAsync"/>.</returns>
    /// <exception cref="ProtocolException">The back-end cannot log, or refused.</exception>
    public async Task<FrontendLog> StartLoggingAsync(
        IReadOnlyList<FrontendQueue> queues, bool tells = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(queues);
        if (!Has(ProtocolFeatures.LogShmFd) || (OfferedFeatures & VirtioFeatures.LogAll) == 0)
        {
            throw new ProtocolException("SET_LOG_BASE", "request", "the back-end keeps no dirty log");
        }

        FrontendLog log = CreateLog(queues.Max(queue => queue.Memory.GuestAddress + queue.Memory.SizeBytes));
        try
        {
            await SetLogBaseAsync(log, cancellation).ConfigureAwait(false);
            if (tells)
            {
                log.Marked = new EventFd();
                await SetLogFdAsync(log.Marked, cancellation).ConfigureAwait(false);
            }

            await SetFeaturesAsync(Features | VirtioFeatures.LogAll, cancellation).ConfigureAwait(false);
            await SetRingLogsAsync(queues, isLogged: true, cancellation).ConfigureAwait(false);
            return log;
        }
        catch
        {
            log.Dispose();
            throw;
        }
    }

    /// <summary>Switches logging off: the migration is done, or was cancelled.</summary>
    public async Task StopLoggingAsync(
        IReadOnlyList<FrontendQueue> queues, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(queues);
        await SetFeaturesAsync(Features & ~VirtioFeatures.LogAll, cancellation).ConfigureAwait(false);
        await SetRingLogsAsync(queues, isLogged: false, cancellation).ConfigureAwait(false);
    }

    private async Task SetRingLogsAsync(
        IReadOnlyList<FrontendQueue> queues, bool isLogged, CancellationToken cancellation)
    {
        foreach (DriverQueueLink queue in queues)
        {
            await SetVringAddrAsync(
                queue.Ring.Index, queue.Ring.Addresses, queue.Memory, isLogged, cancellation).ConfigureAwait(false);
        }
    }
}

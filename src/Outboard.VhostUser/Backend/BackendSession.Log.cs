// The dirty log of a live migration, vhost-user "Migration". Logging is in force while VHOST_F_LOG_ALL is among the
// features and a log was given, in whatever order the two come; a ring's own writes are logged while its
// VHOST_VRING_F_LOG is set, too. A cancelled migration clears the feature bit: nothing is marked from then on.
//
// Every change is carried out by each running queue on its own thread before the reply: after it nothing is marked in
// the log of before, and everything in the new one. Why no page is missed: Memory/DirtyLog, Virtio/Queue/DirtyTracker.
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private DirtyLog? _dirtyLog;
    private Notifier? _logNotifier;

    private bool WantsLog => (_features & VirtioFeatures.LogAll) != 0;

    /// <summary>
    /// Takes a log, or another one instead. It has a reply of its own: a refusal ends the connection.
    /// </summary>
    private async ValueTask<Reply> SetLogBaseAsync(VhostUserMessage message)
    {
        LogPayload log = message.Read<LogPayload>();
        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("SET_LOG_BASE", "descriptors", "none came");
        }

        if (log.Offset % DirtyLog.Alignment != 0)
        {
            throw new ProtocolException(
                "SET_LOG_BASE", "offset", $"0x{log.Offset:x} is not aligned to {DirtyLog.Alignment}");
        }

        DirtyLog fresh = MapLog(message.Attachments[0], log);
        try
        {
            RequireLogCovers("SET_LOG_BASE", "size", fresh, _memory);
            foreach (Vring vring in _vrings)
            {
                RequireLogCoversRing("SET_LOG_BASE", "size", fresh, vring);
            }
        }
        catch (ProtocolException)
        {
            fresh.Dispose();
            throw;
        }

        DirtyLog? old = _dirtyLog;
        _dirtyLog = fresh;
        await UpdateLogsAsync().ConfigureAwait(false);
        old?.Dispose();
        return Reply.Value(0);
    }

    /// <summary>The notifier that is signalled after pages were marked.</summary>
    private async ValueTask<Reply> SetLogFdAsync(VhostUserMessage message)
    {
        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("SET_LOG_FD", "descriptors", "none came");
        }

        Notifier? old = _logNotifier;
        try
        {
            _logNotifier = message.Attachments[0].ToNotifier();
        }
        catch (IOException error)
        {
            throw new ProtocolException("SET_LOG_FD", "descriptors", error.Message, error);
        }

        _dirtyLog = _dirtyLog?.With(_logNotifier.Signal);
        await UpdateLogsAsync().ConfigureAwait(false);
        old?.Dispose();
        return Reply.Done;
    }

    /// <summary>Where a ring is to log; null when it is not.</summary>
    private QueueLog? LogOf(Vring vring) =>
        WantsLog && _dirtyLog is { } log ? new QueueLog(log, vring.LogAddress) : null;

    private async Task UpdateLogsAsync()
    {
        foreach (Vring vring in _vrings)
        {
            await UpdateLogAsync(vring).ConfigureAwait(false);
        }
    }

    private async Task UpdateLogAsync(Vring vring)
    {
        if (vring.Running is { } running)
        {
            await running.LogAsync(LogOf(vring)).ConfigureAwait(false);
        }
    }

    /// <summary>A log that is in force must have a bit for each page of memory that the device may write.</summary>
    private void RequireLogged(GuestMemory memory)
    {
        if (WantsLog && _dirtyLog is { } log && EndOf(memory) is var end && !log.Covers(0, end))
        {
            throw new GuestMemoryException(
                $"guest memory ends at 0x{end:x}, the dirty log of {log.SizeBytes} bytes before that: "
                + "send a larger one by SET_LOG_BASE first");
        }
    }

    private static void RequireLogCovers(string request, string field, DirtyLog log, GuestMemory memory)
    {
        ulong end = EndOf(memory);
        if (!log.Covers(0, end))
        {
            throw new ProtocolException(
                request,
                field,
                $"a log of {log.SizeBytes} bytes has {log.PageCount} pages, guest memory ends at 0x{end:x}: "
                + $"{DirtyLog.BytesFor(end - 1)} bytes are needed");
        }
    }

    /// <summary>With an IOMMU the address is the device's, which says nothing about the log.</summary>
    private void RequireLogCoversRing(string request, string field, DirtyLog log, Vring vring)
    {
        if ((_features & VirtioFeatures.AccessPlatform) == 0 && vring.LogAddress is { } address
            && !log.Covers(address, LoggedRingBytes(vring)))
        {
            throw new ProtocolException(
                request,
                field,
                $"the ring of queue {vring.Index} is logged at 0x{address:x}, a log of {log.SizeBytes} bytes ends "
                + "before that");
        }
    }

    private uint LoggedRingBytes(Vring vring) =>
        IsPacked || vring.Size == 0 ? PackedRing.EventBytes : SplitRing.UsedBytes(vring.Size);

    /// <summary>The first address behind all regions; the last byte stands for an end that wraps to 0.</summary>
    private static ulong EndOf(GuestMemory memory) => memory.Regions.IsEmpty
        ? 0
        : memory.Regions[^1] is var last && last.SizeBytes > ulong.MaxValue - last.GuestAddress
            ? ulong.MaxValue
            : last.GuestAddress + last.SizeBytes;

    private DirtyLog MapLog(Attachment attachment, LogPayload log)
    {
        try
        {
            using SharedMemory memory = attachment.ToSharedMemory();
            MemoryMapping mapping = memory.Map(log.Offset, log.SizeBytes);
            return new DirtyLog(mapping, _logNotifier is { } notifier ? notifier.Signal : null);
        }
        catch (IOException error)
        {
            throw new ProtocolException("SET_LOG_BASE", "log", error.Message, error);
        }
    }

    /// <summary>
    /// Rings that are all stopped with the log on: the guest goes on elsewhere, where another process waits for what
    /// this one holds. A migration that fails after that starts the rings again.
    /// </summary>
    private void HandOverWhenGone()
    {
        if (WantsLog && _vrings.All(vring => vring.Running is null))
        {
            _device.HandOver();
        }
    }

    private void DisposeLog()
    {
        _dirtyLog?.Dispose();
        _logNotifier?.Dispose();
    }
}

// Post-copy, at the destination: the guest runs here before its memory has come. ADVISE opens a userfaultfd, which
// the front-end gets a copy of; from LISTEN on, each memory table (or region) is mapped and answered with the
// addresses here, and is used only when the front-end has acknowledged that it knows them: by the same request, of
// eight bytes, without descriptors. A queue's thread that touches a page which is still missing sleeps until the
// front-end has put it into the file. END: all has come.
//
// Nothing that answers requests touches guest memory, whatever the state: rings are opened, served and stopped on
// their workers. A start or a stop is answered when its worker has carried it out, so a front-end must resolve faults
// elsewhere than where it awaits these answers, as QEMU does. Should it go away meanwhile, nobody resolves them any
// more: the pages become zeroes in a memory that is nobody's.
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    /// <summary>
    /// Not offered where workers are shared: a thread that waits for a page of one front-end would keep the devices of
    /// others waiting.
    /// </summary>
    private const ProtocolFeatures WaitingFeatures = ProtocolFeatures.PageFault;

    /// <summary>How often a request that takes long looks whether the front-end is still there.</summary>
    private static readonly TimeSpan s_lookInterval = TimeSpan.FromMilliseconds(50);

    private UserFaults? _faults;
    private bool _listensForPages;
    private HeldMemory? _heldMemory;

    /// <summary>Answered without a descriptor when it cannot be.</summary>
    private Reply PostcopyAdvise()
    {
        try
        {
            if (_listensForPages)
            {
                throw new ProtocolException("POSTCOPY_ADVISE", "state", "a post-copy goes on");
            }

            UserFaults fresh = UserFaults.Open();
            _faults?.Dispose();
            _faults = fresh;
            return Reply.Payload([], _channel.Attach(fresh));
        }
        catch (Exception error) when (error is IOException or ProtocolException)
        {
            _log.LogWarning("POSTCOPY_ADVISE: refused: {Reason}", error.Message);
            return Reply.Payload([]);
        }
    }

    private Reply PostcopyListen()
    {
        if (_faults is null || _listensForPages || !_memory.Regions.IsEmpty)
        {
            _log.LogWarning(
                "POSTCOPY_LISTEN: refused: {Reason}",
                _faults is null ? "POSTCOPY_ADVISE comes first" : "memory is mapped already");
            return Reply.Value(1);
        }

        _listensForPages = true;
        return Reply.Value(0);
    }

    /// <summary>All pages have come. Whoever still waits for one finds it now.</summary>
    private Reply PostcopyEnd()
    {
        if (_faults is null)
        {
            _log.LogWarning("POSTCOPY_END: refused: no post-copy was begun");
            return Reply.Value(1);
        }

        EndPostcopy();
        return Reply.Value(0);
    }

    /// <summary>A request may wait for a worker, and that for a page, and that for a front-end that is gone.</summary>
    private async Task<Reply> DispatchInPostcopyAsync(VhostUserMessage message)
    {
        Task<Reply> carriedOut = DispatchAsync(message).AsTask();
        while (await Task.WhenAny(carriedOut, Task.Delay(s_lookInterval)).ConfigureAwait(false) != carriedOut)
        {
            EndPostcopyOfNobody();
        }

        return await carriedOut.ConfigureAwait(false);
    }

    private void EndPostcopyOfNobody()
    {
        if (_channel.HasEnded)
        {
            EndPostcopy();
        }
    }

    private void EndPostcopy()
    {
        DropHeldMemory();
        _faults?.Dispose();
        _faults = null;
        _listensForPages = false;
    }

    /// <summary>Answers with the addresses here, and holds the memory back until they are acknowledged.</summary>
    private Reply HoldMemory(
        VhostUserMessage message, GuestMemory memory, IReadOnlyList<MemoryRegion> fresh, bool keepsOldRegions)
    {
        RequireLogged(memory);
        byte[] payload = message.Payload.ToArray();
        Span<MemoryRegionPayload> entries =
            MemoryMarshal.Cast<byte, MemoryRegionPayload>(payload.AsSpan(MemoryTablePayload.Bytes));
        for (int i = 0; i < fresh.Count; i++)
        {
            entries[i] = entries[i] with { UserAddress = fresh[i].Segment.Address };
        }

        _heldMemory = new HeldMemory(message.Request, memory, fresh, keepsOldRegions);
        return Reply.Payload(payload);
    }

    /// <summary>The front-end knows the addresses and serves faults from now on: the memory may be used.</summary>
    private async ValueTask<Reply> AcknowledgeMemoryAsync(VhostUserMessage message)
    {
        HeldMemory held = _heldMemory!;
        ulong status = message.Read<ulong>();
        string name = RequestTable.Frontend(message.Request)!.Name;
        try
        {
            if (status != 0)
            {
                throw new ProtocolException(name, "status", $"the front-end failed ({status})");
            }

            foreach (MemoryRegion region in held.Fresh)
            {
                region.Watch(_faults!);
            }
        }
        catch (Exception error) when (error is IOException or ProtocolException)
        {
            DropHeldMemory();
            throw error as ProtocolException ?? new ProtocolException(name, "region", error.Message, error);
        }

        _heldMemory = null;
        await ReplaceAsync(held.Memory, held.KeepsOldRegions).ConfigureAwait(false);
        return Reply.Done;
    }

    private bool IsAcknowledgement(VhostUserMessage message) => _heldMemory is { } held
        && held.Request == message.Request && message.Payload.Length == sizeof(ulong)
        && message.Attachments.Count == 0;

    /// <summary>Memory that is held back is acknowledged by the very next message.</summary>
    private void RequireAcknowledgement(VhostUserMessage message)
    {
        if (_heldMemory is { } held && !IsAcknowledgement(message))
        {
            DropHeldMemory();
            throw new ProtocolException(
                RequestTable.Frontend(held.Request)!.Name, "acknowledgement", $"request {message.Request} came instead")
            {
                IsFatal = true,
            };
        }
    }

    private void DropHeldMemory()
    {
        Unmap(_heldMemory?.Fresh ?? []);
        _heldMemory = null;
    }

    /// <summary>Memory whose addresses were told and not acknowledged.</summary>
    private sealed record HeldMemory(
        uint Request, GuestMemory Memory, IReadOnlyList<MemoryRegion> Fresh, bool KeepsOldRegions);
}

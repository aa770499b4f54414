// Live migration as a front-end drives it, third part: post-copy, at the destination.
//
//   pages = PostcopyAdviseAsync; PostcopyListenAsync
//   ShareMemoryAsync for each memory, whose pages are missing (PostcopyPages.Empty)
//   pages.ServeAsync beside all that follows: start the queues, let the guest run, place pages as they come
//   all have come: PostcopyEndAsync
//
// A back-end may touch a missing page before it answers a request that starts or stops a ring: pages are served by a
// thread of their own.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    private PostcopyPages? _pages;
    private bool _inPostcopy;

    /// <summary>POSTCOPY_ADVISE: the back-end opens its faults to this front-end.</summary>
    /// <returns>The pages, the caller's to dispose after <see cref="PostcopyEndAsync"/>.</returns>
    /// <exception cref="ProtocolException">The back-end cannot do that on its machine.</exception>
    public async Task<PostcopyPages> PostcopyAdviseAsync(CancellationToken cancellation = default)
    {
        UserFaults? faults = null;
        await RequestAsync(
            FrontendRequest.PostcopyAdvise,
            [],
            message => faults = message.Attachments.Count == 1 ? message.Attachments[0].ToUserFaults() : null,
            cancellation).ConfigureAwait(false);
        _pages = faults is not null
            ? new PostcopyPages(faults)
            : throw new ProtocolException(
                "POSTCOPY_ADVISE", "descriptors", "none came: the back-end may not use userfaultfd");
        return _pages;
    }

    /// <summary>POSTCOPY_LISTEN: memory that is shared from now on comes later.</summary>
    /// <exception cref="ProtocolException">The back-end refused.</exception>
    public async Task PostcopyListenAsync(CancellationToken cancellation = default)
    {
        await RequestStatusAsync(FrontendRequest.PostcopyListen, cancellation).ConfigureAwait(false);
        _inPostcopy = true;
        State.IsInPostcopy = true;
    }

    /// <summary>POSTCOPY_END: all pages have come.</summary>
    /// <exception cref="ProtocolException">The back-end refused.</exception>
    public async Task PostcopyEndAsync(CancellationToken cancellation = default)
    {
        await RequestStatusAsync(FrontendRequest.PostcopyEnd, cancellation).ConfigureAwait(false);
        _inPostcopy = false;
        State.IsInPostcopy = false;
        _pages = null;
    }

    private async Task RequestStatusAsync(FrontendRequest request, CancellationToken cancellation)
    {
        ulong status = await RequestValueAsync(request, cancellation).ConfigureAwait(false);
        if (status != 0)
        {
            throw new ProtocolException(
                RequestTable.Frontend(request).Name, "reply", $"the back-end refused the request ({status})");
        }
    }

    /// <summary>
    /// Shares memory whose pages are missing: the back-end answers with its own address, which is acknowledged before
    /// anybody can touch it.
    /// </summary>
    private async Task ShareInPostcopyAsync(DriverMemory memory, CancellationToken cancellation)
    {
        bool slots = Has(ProtocolFeatures.ConfigureMemSlots);
        FrontendRequest request = slots ? FrontendRequest.AddMemReg : FrontendRequest.SetMemTable;
        RequestRow row = RequestTable.Frontend(request);
        byte[] payload = slots
            ? VhostUserMessage.PayloadOf(new SingleMemoryRegionPayload(0, Describe(memory)))
            :
            [
                .. VhostUserMessage.PayloadOf(new MemoryTablePayload(1, 0)),
                .. VhostUserMessage.PayloadOf(Describe(memory)),
            ];
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            VhostUserMessage message = new((uint)request, 0, payload, Pass(memory));
            ReadOnlyMemory<byte> reply =
                await ExchangeAsync(row, message, hasReply: true, null, cancellation).ConfigureAwait(false);
            if (reply.Length != payload.Length)
            {
                throw BrokenReply(row.Name, "size", $"{reply.Length} bytes of reply, {payload.Length} are due");
            }

            ulong backendBase = MemoryMarshal
                .Read<MemoryRegionPayload>(reply.Span[MemoryTablePayload.Bytes..]).UserAddress;
            _pages!.Add(memory, backendBase);
            VhostUserMessage known = new((uint)request, 0, VhostUserMessage.PayloadOf(0UL));
            await ExchangeAsync(row, known, hasReply: false, null, cancellation).ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }
    }
}

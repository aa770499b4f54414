// The IOMMU, vhost-user "IOMMU support": translations that the front-end tells and withdraws, and those that it is
// asked for when a queue lacks them.
//
// A front-end may block while it waits for a reply of ours, and it may answer what we ask only afterwards. So nothing
// here is waited for by the control loop: a queue that lacks a translation waits by itself (Virtqueue.Translation),
// misses are asked for on the back-end channel by tasks of their own, and a withdrawal that requests in flight hold up
// is answered later, while further translation messages are carried out; their replies keep their order.
using System.Collections.Immutable;
using Microsoft.Extensions.Logging;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    /// <summary>
    /// Withdrawals that may wait at one time before the next message is read: front-ends have one, or one for each of
    /// their processors.
    /// </summary>
    private const int MaxUnanswered = 256;

    /// <summary>Without these a back-end cannot ask for what it lacks.</summary>
    private const ProtocolFeatures NeededByIommu = ProtocolFeatures.BackendReq | ProtocolFeatures.ReplyAck;

    private readonly Lock _missLock = new();
    private readonly Dictionary<IovaMiss, PageAsked> _asked = [];
    private IommuTable? _iommu;
    private Task _answers = Task.CompletedTask;
    private int _unanswered;

    private static ulong IommuFeature(ProtocolFeatures offered) =>
        (offered & NeededByIommu) == NeededByIommu ? VirtioFeatures.AccessPlatform : 0;

    /// <summary>Features were accepted: translations of before are worthless without the feature.</summary>
    private void ResetIommu()
    {
        if ((_features & VirtioFeatures.AccessPlatform) == 0)
        {
            _iommu = null;
        }
        else
        {
            _iommu ??= new IommuTable();
        }
    }

    /// <summary>Always answered by a number: 0 when it was carried out.</summary>
    private Reply IotlbMsg(VhostUserMessage message)
    {
        IotlbPayload payload = message.Read<IotlbPayload>();
        if (_iommu is null)
        {
            return RefuseIotlb("type", "the feature ACCESS_PLATFORM was not negotiated");
        }

        return payload.Type switch
        {
            IotlbMessageType.Update => UpdateTranslation(_iommu, payload),
            IotlbMessageType.Invalidate => Reply.LaterValue(WithdrawTranslationsAsync(_iommu, payload)),
            _ => RefuseIotlb("type", $"{(byte)payload.Type} is neither update nor invalidate"),
        };
    }

    private Reply UpdateTranslation(IommuTable iommu, in IotlbPayload payload)
    {
        ulong last = payload.Iova + (payload.SizeBytes - 1);
        if (payload.SizeBytes == 0 || last < payload.Iova)
        {
            return RefuseIotlb("size", $"0x{payload.SizeBytes:x} bytes at 0x{payload.Iova:x}");
        }

        if (payload.Permission is 0 or > (byte)MemoryAccess.ReadWrite)
        {
            return RefuseIotlb("permission", $"{payload.Permission}");
        }

        if (!_memory.HoldsUserRange(payload.UserAddress, payload.SizeBytes))
        {
            return RefuseIotlb(
                "user address", $"0x{payload.SizeBytes:x} bytes at 0x{payload.UserAddress:x} are not guest memory");
        }

        IommuEntry entry = new(payload.Iova, last, payload.UserAddress, (MemoryAccess)payload.Permission);
        iommu.Add(entry);
        foreach (Vring vring in _vrings)
        {
            vring.Running?.Translate(entry);
        }

        return Reply.LaterValue(Task.FromResult(0UL));
    }

    /// <summary>
    /// Forgets a range at once, and is done when no request in flight uses it. A size of 0, or one that leaves the
    /// address space, means everything from there on: forgetting too much does no harm.
    /// </summary>
    private async Task<ulong> WithdrawTranslationsAsync(IommuTable iommu, IotlbPayload payload)
    {
        ulong last = payload.Iova + (payload.SizeBytes - 1);
        last = last < payload.Iova || payload.SizeBytes == 0 ? ulong.MaxValue : last;
        iommu.Remove(payload.Iova, last);
        await Task.WhenAll(_vrings.Select(vring =>
            vring.Running?.WithdrawAsync(payload.Iova, last) ?? Task.CompletedTask)).ConfigureAwait(false);
        return 0;
    }

    private Reply RefuseIotlb(string field, string problem)
    {
        _log.LogWarning("refused: IOTLB_MSG: {Field}: {Problem}", field, problem);
        return Reply.LaterValue(Task.FromResult(1UL));
    }

    /// <summary>Called on a worker's thread. A page that was asked for is not asked for again.</summary>
    private void OnUntranslated(RunningQueue queue, IReadOnlyList<IovaMiss> misses)
    {
        foreach (IovaMiss miss in misses)
        {
            lock (_missLock)
            {
                // Not the same page for another access: by now the address may stand for something else.
                IovaMiss page = miss with { Address = miss.Page };
                if (_asked.TryGetValue(page, out PageAsked? asked))
                {
                    asked.Askers = asked.Askers.Add(queue);
                    asked.IsAskedAgain = true;
                    asked.Address = miss.Address;
                    continue;
                }

                asked = new PageAsked { Askers = [queue], Address = miss.Address };
                _asked.Add(page, asked);
                _ = AskForTranslationAsync(page, asked);
            }
        }
    }

    /// <summary>Called on a worker's thread: the driver used memory that the IOMMU does not give the device.</summary>
    private void OnAccessFailed(int queue, IovaMiss denied)
    {
        _log.LogWarning(
            "queue {Queue}: the IOMMU does not let the device {Access} 0x{Iova:x}", queue, denied.Access,
            denied.Address);
        IotlbPayload payload = new(denied.Address, 0, 0, (byte)denied.Access, IotlbMessageType.AccessFail);
        _backendChannel.Post(BackendRequest.IotlbMsg, VhostUserMessage.PayloadOf(payload));
    }

    /// <summary>Asks for a page until nobody needs it any more, or the front-end refuses.</summary>
    private async Task AskForTranslationAsync(IovaMiss page, PageAsked asked)
    {
        // Not on the thread of a queue, which holds the lock here.
        await Task.Yield();
        while (true)
        {
            bool isRefused = await IsRefusedAsync(page).ConfigureAwait(false);
            bool isLast;
            ulong address;
            lock (_missLock)
            {
                isLast = !asked.IsAskedAgain;
                asked.IsAskedAgain = false;
                address = asked.Address;
                if (isLast)
                {
                    _asked.Remove(page);
                }
            }

            IommuEntry entry = default;
            bool isKnown = _iommu is { } iommu && iommu.TryFind(address, out entry);

            if (isLast)
            {
                // An answer that allows less than was asked for is a refusal as well.
                foreach (RunningQueue queue in isRefused || (isKnown && !entry.Allows(page.Access)) ? asked.Askers : [])
                {
                    queue.RefuseTranslation(page);
                }

                return;
            }

            // Someone came to need it while the answer was on its way, which tells of an earlier time.
            if (isKnown && entry.Allows(page.Access))
            {
                foreach (RunningQueue queue in asked.Askers)
                {
                    queue.Translate(entry);
                }

                lock (_missLock)
                {
                    if (!asked.IsAskedAgain)
                    {
                        _asked.Remove(page);
                        return;
                    }
                }
            }
        }
    }

    private async Task<bool> IsRefusedAsync(IovaMiss page)
    {
        IotlbPayload payload = new(page.Page, IommuView.PageBytes, 0, (byte)page.Access, IotlbMessageType.Miss);
        while (true)
        {
            int replaced = _backendChannel.Replaced;
            try
            {
                using VhostUserMessage? reply = await AskFrontendAsync(
                    BackendRequest.IotlbMsg, VhostUserMessage.PayloadOf(payload)).ConfigureAwait(false);
                return reply is not null && (reply.Payload.Length != sizeof(ulong) || reply.Read<ulong>() != 0);
            }
            catch (IOException error) when (_backendChannel.Replaced == replaced)
            {
                _log.LogWarning("translation of 0x{Iova:x}: {Reason}", page.Page, error.Message);
                return true;
            }
            catch (IOException)
            {
                // The front-end has given another channel meanwhile; the question goes there.
            }
        }
    }

    /// <summary>Sends a reply when it is known, after all that are due before it.</summary>
    private void AnswerLater(VhostUserMessage message, Task<byte[]> payload, CancellationToken cancellation)
    {
        Interlocked.Increment(ref _unanswered);
        _answers = AnswerInTurnAsync(_answers, message, payload, cancellation);
    }

    private async Task AnswerInTurnAsync(
        Task earlier, VhostUserMessage message, Task<byte[]> payload, CancellationToken cancellation)
    {
        await earlier.ConfigureAwait(false);
        await SendReplyAsync(message, await payload.ConfigureAwait(false), cancellation).ConfigureAwait(false);
        Interlocked.Decrement(ref _unanswered);
    }

    /// <summary>A request is carried out when all earlier ones have been answered, but for translations.</summary>
    private Task AnswerEarlierAsync(VhostUserMessage message) =>
        (FrontendRequest)message.Request == FrontendRequest.IotlbMsg
            && Volatile.Read(ref _unanswered) < MaxUnanswered
            ? Task.CompletedTask
            : _answers;

    /// <summary>The session ends: whatever is still to be answered has nobody to read it.</summary>
    private async Task EndAnswersAsync()
    {
        _channel.Close();
        try
        {
            await _answers.ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or OperationCanceledException or InvariantException)
        {
            // Told where it happened.
        }
    }

    private sealed class PageAsked
    {
        internal ImmutableHashSet<RunningQueue> Askers { get; set; } = [];

        /// <summary>What was needed of the page when it was last asked for.</summary>
        internal ulong Address { get; set; }

        internal bool IsAskedAgain { get; set; }
    }
}

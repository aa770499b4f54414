// Admin commands that make and delete I/O queues, and that put the doorbells into memory.
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

internal sealed partial class AdminQueue
{
    private const uint IsContiguous = 1;

    private async Task<(NvmeStatus Status, uint Result)> CreateCompletionQueueAsync(NvmeCommand command)
    {
        const uint interrupts = 2;
        int id = (int)(command.Word10 & 0xffff);
        uint size = (command.Word10 >> 16) + 1;
        int vector = (int)(command.Word11 >> 16);
        bool hasInterrupts = (command.Word11 & interrupts) != 0;
        NvmeStatus status = id == 0 || id > _features.GrantedQueues || _controller.Completion(id) is not null
            ? NvmeStatus.InvalidQueueIdentifier
            : hasInterrupts && vector >= (_controller.UsesVectors ? _controller.VectorCount : 1)
                ? NvmeStatus.InvalidInterruptVector
                : CheckRing(in command, size, _controller.CompletionEntryShift == 4);
        if (status == NvmeStatus.Success)
        {
            await _controller.AddAsync(new CompletionQueue(
                _controller.WorkerFor(id), id, size, command.Pointer1, vector, hasInterrupts)).ConfigureAwait(false);
        }

        return (status, 0);
    }

    private async Task<(NvmeStatus Status, uint Result)> CreateSubmissionQueueAsync(NvmeCommand command)
    {
        int id = (int)(command.Word10 & 0xffff);
        uint size = (command.Word10 >> 16) + 1;
        int completion = (int)(command.Word11 >> 16);
        if (id == 0 || id > _features.GrantedQueues || _controller.Submission(id) is not null)
        {
            return (NvmeStatus.InvalidQueueIdentifier, 0);
        }

        if (completion == 0 || _controller.Completion(completion) is not { } completions)
        {
            return (
                completion == 0 || completion > _features.GrantedQueues
                    ? NvmeStatus.InvalidQueueIdentifier
                    : NvmeStatus.CompletionQueueInvalid,
                0);
        }

        NvmeStatus status = CheckRing(in command, size, _controller.SubmissionEntryShift == 6);
        if (status == NvmeStatus.Success)
        {
            await _controller.AddAsync(new SubmissionQueue(
                completions.Worker, completions, id, size, command.Pointer1)).ConfigureAwait(false);
        }

        return (status, 0);
    }

    private NvmeStatus CheckRing(in NvmeCommand command, uint size, bool hasEntrySize)
    {
        if (size < 2 || size > _controller.Options.QueueSize)
        {
            return NvmeStatus.InvalidQueueSize;
        }

        if ((command.Word11 & IsContiguous) == 0 || !hasEntrySize)
        {
            return NvmeStatus.InvalidField;
        }

        return (command.Pointer1 & (ulong)(_controller.PageBytes - 1)) != 0
            ? NvmeStatus.PrpOffsetInvalid
            : NvmeStatus.Success;
    }

    private async Task<(NvmeStatus Status, uint Result)> DeleteSubmissionQueueAsync(NvmeCommand command)
    {
        if (_controller.Submission((int)(command.Word10 & 0xffff)) is not { } queue)
        {
            return (NvmeStatus.InvalidQueueIdentifier, 0);
        }

        await _controller.RemoveAsync(queue, discard: false).ConfigureAwait(false);
        return (NvmeStatus.Success, 0);
    }

    private async Task<(NvmeStatus Status, uint Result)> DeleteCompletionQueueAsync(NvmeCommand command)
    {
        if (_controller.Completion((int)(command.Word10 & 0xffff)) is not { } queue)
        {
            return (NvmeStatus.InvalidQueueIdentifier, 0);
        }

        if (queue.Users > 0)
        {
            return (NvmeStatus.InvalidQueueDeletion, 0);
        }

        await _controller.RemoveAsync(queue).ConfigureAwait(false);
        return (NvmeStatus.Success, 0);
    }

    private async Task<(NvmeStatus Status, uint Result)> ConfigureDoorbellsAsync(NvmeCommand command)
    {
        ulong mask = (ulong)(_controller.PageBytes - 1);
        if (!_controller.OffersShadowDoorbells)
        {
            return (NvmeStatus.InvalidOpcode, 0);
        }

        if ((command.Pointer1 & mask) != 0 || (command.Pointer2 & mask) != 0
            || !_controller.HoldsShadow(command.Pointer1) || !_controller.HoldsShadow(command.Pointer2))
        {
            return (NvmeStatus.InvalidField, 0);
        }

        foreach (NvmeWorker worker in _controller.Workers)
        {
            await worker.ConfigureShadowAsync(command.Pointer1, command.Pointer2).ConfigureAwait(false);
        }

        _controller.HasShadowDoorbells = true;
        return (NvmeStatus.Success, 0);
    }
}

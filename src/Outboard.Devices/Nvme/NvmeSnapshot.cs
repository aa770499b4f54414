// All of a controller that moves to another process, checked or taken from one that is halted.
using Outboard.Devices.Nvme.Admin;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme;

/// <summary>A controller at rest.</summary>
internal sealed record NvmeSnapshot
{
    internal required byte[] Config { get; init; }

    /// <summary>The MSI-X table; empty without.</summary>
    internal required byte[] Vectors { get; init; }

    internal required uint InterruptMask { get; init; }

    internal required NvmeConfiguration Configuration { get; init; }

    internal required NvmeControllerStatus Status { get; init; }

    internal required uint AdminAttributes { get; init; }

    internal required ulong AdminSubmission { get; init; }

    internal required ulong AdminCompletion { get; init; }

    /// <summary>The admin queue; null while the controller is disabled.</summary>
    internal required AdminPosition? Admin { get; init; }

    internal required bool HasWriteCache { get; init; }

    internal required uint[] Events { get; init; }

    internal required byte[] Errors { get; init; }

    internal required long[] Counters { get; init; }

    internal required TimeSpan PoweredOn { get; init; }

    /// <summary>Where doorbells are in memory, if they are.</summary>
    internal required (ulong Values, ulong Events)? Shadow { get; init; }

    internal required IReadOnlyList<NvmeCompletionRecord> Completions { get; init; }

    internal required IReadOnlyList<NvmeSubmissionRecord> Submissions { get; init; }

    internal uint AdminSubmissionSize => (AdminAttributes & 0xfff) + 1;

    internal uint AdminCompletionSize => ((AdminAttributes >> 16) & 0xfff) + 1;
}

/// <summary>A completion queue at rest.</summary>
internal sealed record NvmeCompletionRecord(
    int Id, uint Size, ulong Address, int Vector, bool HasInterrupts, uint Tail, uint Head, uint HeadRegister,
    uint Phase)
{
    internal static NvmeCompletionRecord Of(CompletionQueue queue)
    {
        (uint tail, uint head, uint headRegister, uint phase) = queue.Position;
        return new(
            queue.Id, queue.Size, queue.Address, queue.Vector, queue.HasInterrupts, tail, head, headRegister, phase);
    }
}

/// <summary>A submission queue at rest.</summary>
internal sealed record NvmeSubmissionRecord(
    int Id, uint Size, ulong Address, int Completion, uint Head, uint Tail, uint TailRegister, uint[] Aborted)
{
    internal static NvmeSubmissionRecord Of(SubmissionQueue queue)
    {
        (uint head, uint tail, uint tailRegister, uint[] aborted) = queue.Position;
        return new(queue.Id, queue.Size, queue.Address, queue.Completions.Id, head, tail, tailRegister, aborted);
    }
}

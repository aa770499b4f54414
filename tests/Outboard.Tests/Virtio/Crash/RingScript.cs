// What driver and device do in a crash test: made from a seed, the same at every run.
using Outboard.Virtio.Spec;

namespace Outboard.Tests.Virtio.Crash;

internal enum StepKind
{
    Add,
    Take,
    Complete,
    PutBack,
    Publish,
    Arm,
    Collect,
}

internal readonly record struct RingStep(StepKind Kind, int Argument = 0);

/// <summary>A ring to be crashed.</summary>
/// <param name="IsPacked">Packed or split.</param>
/// <param name="Size">Descriptors.</param>
/// <param name="IsIndirect">Chains of several buffers in indirect tables.</param>
/// <param name="FirstIndex">Where a split ring begins.</param>
/// <param name="IsInOrder">Whether chains are returned as they came.</param>
internal sealed record RingShape(bool IsPacked, int Size, bool IsIndirect, ushort FirstIndex, bool IsInOrder = false)
{
    internal ulong Features => VirtioFeatures.Version1 | VirtioFeatures.EventIndex
        | (IsInOrder ? VirtioFeatures.InOrder : 0)
        | (IsPacked ? VirtioFeatures.RingPacked : 0) | (IsIndirect ? VirtioFeatures.IndirectDescriptors : 0);
}

internal static class RingScript
{
    /// <summary>A random script with batches of up to <paramref name="batch"/> chains.</summary>
    internal static List<RingStep> Make(int seed, int rounds, int batch)
    {
        Random random = new(seed);
        List<RingStep> script = [];
        for (int round = 0; round < rounds; round++)
        {
            int count = random.Next(1, batch + 1);
            script.Add(new RingStep(StepKind.Add, count));
            for (int i = 0; i < count; i++)
            {
                script.Add(new RingStep(StepKind.Take));
                if (random.Next(4) == 0)
                {
                    script.Add(new RingStep(StepKind.PutBack));
                    script.Add(new RingStep(random.Next(2) == 0 ? StepKind.Take : StepKind.Arm));
                }

                if (random.Next(3) == 0)
                {
                    script.Add(new RingStep(StepKind.Complete, random.Next(16)));
                }
            }

            int completed = random.Next(0, batch + 1);
            for (int i = 0; i < completed; i++)
            {
                script.Add(new RingStep(StepKind.Complete, random.Next(16)));
            }

            script.Add(new RingStep(StepKind.Publish));
            script.Add(new RingStep(random.Next(2) == 0 ? StepKind.Collect : StepKind.Arm));
        }

        return script;
    }
}

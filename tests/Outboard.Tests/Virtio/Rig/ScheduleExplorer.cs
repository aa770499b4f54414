// Runs two programs in every possible interleaving of their steps. A schedule is a list of choices; each is replayed
// from the beginning, up to the place where a choice was made the other way.
namespace Outboard.Tests.Virtio.Rig;

/// <summary>One side: says whether it can go on, and takes its next step.</summary>
internal interface ISteppedProgram
{
    /// <summary>False while it sleeps, and at its end.</summary>
    bool CanStep { get; }

    void Step();
}

internal static class ScheduleExplorer
{
    /// <summary>
    /// Explores all schedules; <paramref name="check"/> looks at the state in which nobody can go on.
    /// </summary>
    /// <returns>How many schedules there are.</returns>
    internal static int Explore<T>(
        Func<T> create, Func<T, (ISteppedProgram One, ISteppedProgram Other)> sides, Action<T> check, int maxSteps)
        where T : IDisposable
    {
        List<bool> choices = [];
        int schedules = 0;
        do
        {
            schedules++;
            using T world = create();
            (ISteppedProgram one, ISteppedProgram other) = sides(world);
            int choice = 0;
            int steps = 0;
            while ((one.CanStep || other.CanStep) && steps++ < maxSteps)
            {
                bool takesOther = !one.CanStep;
                if (one.CanStep && other.CanStep)
                {
                    if (choice == choices.Count)
                    {
                        choices.Add(false);
                    }

                    takesOther = choices[choice++];
                }

                (takesOther ? other : one).Step();
            }

            check(world);
        }
        while (Next(choices));
        return schedules;
    }

    /// <summary>The next schedule in order: the last choice that was not yet made the other way.</summary>
    private static bool Next(List<bool> choices)
    {
        while (choices.Count > 0 && choices[^1])
        {
            choices.RemoveAt(choices.Count - 1);
        }

        if (choices.Count > 0)
        {
            choices[^1] = true;
        }

        return choices.Count > 0;
    }
}

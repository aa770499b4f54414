// AssemblySettings.cs - two test classes run at a time: a test machine spends half of its time in waiting for its
// firmware, for a program or for its own script, and the checks have two processors. The tests of one class run one
// after another. Nothing is shared between tests: sockets and images have a folder of their own, networks a namespace.
using Xunit;

[assembly: CollectionBehavior(MaxParallelThreads = 2)]

namespace Outboard.InteropTests;

/// <summary>Tests whose programs poll on both processors all the time: they run when no other test does.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneOnTheMachine
{
    public const string Name = "alone on the machine";
}

// AssemblySettings.cs - two test classes run at a time: a test machine spends half of its time in waiting for its
// firmware, for a program or for its own script, and the checks have two processors. The tests of one class run one
// after another. Nothing is shared between tests: sockets and images have a folder of their own, networks a namespace.
using Xunit;

[assembly: CollectionBehavior(MaxParallelThreads = 2)]

namespace Outboard.InteropTests;

/// <summary>
/// Tests that run when no other test does: their programs poll on both processors all the time, or several machines run
/// at once. QEMU 11.1, with a device whose shared memory regions are mapped at run time, dies now and then when that
/// device is reset and started again on a machine that is short of processors (memory_region_get_fd, below
/// vhost_dev_start).
/// </summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class AloneOnTheMachine
{
    public const string Name = "alone on the machine";
}

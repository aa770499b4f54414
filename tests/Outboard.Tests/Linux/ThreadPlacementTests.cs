// Threads on processors.
using Outboard.Linux;
using Outboard.Linux.Threads;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class ThreadPlacementTests
{
    [Fact]
    public void A_pinned_thread_has_one_processor_and_the_process_keeps_the_rest()
    {
        IReadOnlyList<int> available = ThreadPlacement.AvailableCpus;
        Assert.NotEmpty(available);
        Assert.Equal(available.Order(), available);
        OnOwnThread(() =>
        {
            ThreadPlacement.PinCurrentThread(available[^1]);
            Assert.Equal([available[^1]], ThreadPlacement.CurrentThreadCpus);
        });
        Assert.Equal(available, ThreadPlacement.AvailableCpus);
    }

    [Fact]
    public void A_processor_that_is_not_there_is_refused_with_those_that_are()
    {
        int missing = ThreadPlacement.AvailableCpus[^1] + 1;
        while (ThreadPlacement.AvailableCpus.Contains(missing))
        {
            missing++;
        }

        OnOwnThread(() =>
        {
            LinuxException error = Assert.Throws<LinuxException>(() => ThreadPlacement.PinCurrentThread(missing));
            Assert.Equal(Errno.InvalidArgument, error.Errno);
            Assert.Contains("may use", error.Message, StringComparison.Ordinal);
        });
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(8192)]
    public void Numbers_outside_the_mask_are_the_callers_bug(int cpu) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => ThreadPlacement.PinCurrentThread(cpu));

    private static void OnOwnThread(Action action)
    {
        Exception? failure = null;
        Thread thread = new(() => failure = Record.Exception(action));
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }
}

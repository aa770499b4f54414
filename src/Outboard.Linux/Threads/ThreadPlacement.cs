// On which processors threads may run.
// Not here: priorities, thread names (the runtime sets them), NUMA memory policy.
using System.Numerics;
using Outboard.Linux.Native;

namespace Outboard.Linux.Threads;

/// <summary>Places threads on processors.</summary>
public static class ThreadPlacement
{
    /// <summary>Bits in a mask: the kernel's largest configuration.</summary>
    private const int MaxCpus = 8192;

    private const int MaskWords = MaxCpus / 64;

    /// <summary>The processors that this process may use, in ascending order: those of its first thread.</summary>
    /// <exception cref="LinuxException">The kernel does not tell.</exception>
    public static IReadOnlyList<int> AvailableCpus => ReadMask(Environment.ProcessId);

    /// <summary>The processors that the calling thread may use, in ascending order.</summary>
    /// <exception cref="LinuxException">The kernel does not tell.</exception>
    public static IReadOnlyList<int> CurrentThreadCpus => ReadMask(0);

    /// <summary>Lets the calling thread run on one processor only, from now on.</summary>
    /// <param name="cpu">One of <see cref="AvailableCpus"/>.</param>
    /// <remarks>For a thread that the caller started for good: a thread of the pool would stay pinned.</remarks>
    /// <exception cref="LinuxException">This process may not use that processor.</exception>
    // SAFETY: the kernel reads a mask of the size that it is told.
    public static unsafe void PinCurrentThread(int cpu)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(cpu);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(cpu, MaxCpus);
        ulong* mask = stackalloc ulong[MaskWords];
        new Span<ulong>(mask, MaskWords).Clear();
        mask[cpu / 64] = 1UL << (cpu % 64);
        int result = Libc.sched_setaffinity(0, MaskWords * sizeof(ulong), mask);
        int errno = Libc.LastError();
        if (result < 0)
        {
            string available = string.Join(',', AvailableCpus);
            throw new LinuxException("sched_setaffinity", errno, $"processor {cpu}; this process may use {available}");
        }
    }

    // SAFETY: the kernel writes at most the size that it is told.
    private static unsafe List<int> ReadMask(int thread)
    {
        ulong* mask = stackalloc ulong[MaskWords];
        new Span<ulong>(mask, MaskWords).Clear();
        int result = Libc.sched_getaffinity(thread, MaskWords * sizeof(ulong), mask);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("sched_getaffinity", errno);
        }

        List<int> cpus = [];
        for (int word = 0; word < MaskWords; word++)
        {
            for (ulong rest = mask[word]; rest != 0; rest &= rest - 1)
            {
                cpus.Add((word * 64) + BitOperations.TrailingZeroCount(rest));
            }
        }

        return cpus;
    }
}

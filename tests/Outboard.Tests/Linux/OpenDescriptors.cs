// What this process has open, as the kernel tells; for tests that must run alone.
using System.Globalization;
using Outboard.Linux;
using Outboard.Tests.VhostUser;
using Xunit;

namespace Outboard.Tests.Linux;

/// <summary>Tests that count the descriptors of the process, and so must not run beside others.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class DescriptorCounting
{
    public const string Name = "counts descriptors";
}

internal static class OpenDescriptors
{
    private const long CloseOnExec = 0x80000;
    private const long NonBlocking = 0x800;

    public static int Count() => Directory.GetFiles("/proc/self/fd").Length;

    /// <summary>Waits until the count is back at what it was; sockets of the runtime close a little later.</summary>
    public static void AssertCount(int expected)
    {
        Assert.True(
            SpinWait.SpinUntil(() => Count() <= expected, Eventually.Limit),
            $"{Count()} descriptors are open, {expected} were before");
    }

    public static bool IsCloseOnExec(FileDescriptor descriptor) => (Flags(descriptor) & CloseOnExec) != 0;

    public static bool IsNonBlocking(FileDescriptor descriptor) => (Flags(descriptor) & NonBlocking) != 0;

    private static long Flags(FileDescriptor descriptor)
    {
        const string key = "flags:";
        string line = File.ReadLines($"/proc/self/fdinfo/{descriptor.Number.ToString(CultureInfo.InvariantCulture)}")
            .First(text => text.StartsWith(key, StringComparison.Ordinal));
        return Convert.ToInt64(line[key.Length..].Trim(), 8);
    }
}

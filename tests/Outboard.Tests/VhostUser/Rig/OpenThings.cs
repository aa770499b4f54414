// What a session could leave behind in this process: sockets, eventfds, memfds, mappings of shared memory.
using Xunit;

namespace Outboard.Tests.VhostUser;

internal readonly record struct OpenThings(int Sockets, int Events, int Memories, int Mappings)
{
    /// <summary>Names of memfds that these tests and the library make; the runtime has others.</summary>
    private const string MemoryName = "memfd:outboard";

    public static OpenThings Count()
    {
        string[] targets = [.. Directory.EnumerateFiles("/proc/self/fd").Select(TargetOf)];
        return new OpenThings(
            targets.Count(target => target.StartsWith("socket:", StringComparison.Ordinal)),
            targets.Count(target => target.Contains("[eventfd", StringComparison.Ordinal)),
            targets.Count(target => target.Contains(MemoryName, StringComparison.Ordinal)),
            File.ReadLines("/proc/self/maps").Count(line => line.Contains(MemoryName, StringComparison.Ordinal)));
    }

    /// <summary>Other threads close descriptors: waits until nothing is left that was not there.</summary>
    public async Task AssertNothingLeftAsync()
    {
        OpenThings before = this;
        bool clean = await Eventually.IsTrueAsync(() => Count().IsWithin(before), Eventually.Limit);
        Assert.True(clean, $"left open: {Count()}, before: {before}");
    }

    private bool IsWithin(OpenThings before) =>
        Sockets <= before.Sockets && Events <= before.Events
        && Memories <= before.Memories && Mappings <= before.Mappings;

    private static string TargetOf(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget ?? "";
        }
        catch (IOException)
        {
            return "";
        }
    }
}

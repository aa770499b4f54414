// A peer truncates a file that this process has mapped.
using System.Diagnostics;
using System.IO.MemoryMappedFiles;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class TruncationTests
{
    private const string ChildVariable = "OUTBOARD_TEST_CHILD";
    private const int KilledBySignal = 128;
    private const int SignalAbort = 6;
    private const int SignalBus = 7;

    private static readonly ulong s_page = (ulong)Environment.SystemPageSize;

    [Fact]
    public void Reading_a_truncated_mapping_gives_zeroes_and_says_so()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", 4 * s_page);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, 4 * s_page);
        Assert.True(mapping.IsGuarded);
        mapping.Segment.Span.Fill(0xEE);
        Assert.False(mapping.IsTruncated);

        MemFd.Resize(file, s_page);
        Assert.False(mapping.IsTruncated);
        Assert.Equal(0xEE, ReadByte(mapping, 0));
        Assert.False(mapping.IsTruncated);
        Assert.Equal(0, ReadByte(mapping, (int)s_page + 17));
        Assert.True(mapping.IsTruncated);
        Assert.Equal(0xEE, ReadByte(mapping, 100));
    }

    [Fact]
    public void Writing_a_truncated_mapping_goes_nowhere()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", 2 * s_page);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, 2 * s_page);
        MemFd.Resize(file, 0);
        mapping.Segment.Span.Fill(0x11);
        Assert.True(mapping.IsTruncated);
        Assert.Equal(0x11, ReadByte(mapping, (int)s_page));
        MemFd.Resize(file, 2 * s_page);
        using MemoryMapping fresh = MemoryMapping.Map(file, 0, 2 * s_page);
        Assert.Equal(0, ReadByte(fresh, 0));
        Assert.False(fresh.IsTruncated);
    }

    [Fact]
    public void A_read_only_mapping_survives_too()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", s_page);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, s_page, writable: false);
        MemFd.Resize(file, 0);
        Assert.Equal(0, ReadByte(mapping, 3));
        Assert.True(mapping.IsTruncated);
    }

    [Fact]
    public void Only_the_mapping_that_faulted_is_marked()
    {
        using FileDescriptor first = MemFd.CreateUnsealed("first", s_page);
        using FileDescriptor second = MemFd.CreateUnsealed("second", s_page);
        using MemoryMapping hurt = MemoryMapping.Map(first, 0, s_page);
        using MemoryMapping sound = MemoryMapping.Map(second, 0, s_page);
        MemFd.Resize(first, 0);
        Assert.Equal(0, ReadByte(hurt, 0));
        Assert.Equal(0, ReadByte(sound, 0));
        Assert.True(hurt.IsTruncated);
        Assert.False(sound.IsTruncated);
        hurt.Dispose();
        Assert.True(hurt.IsTruncated);
    }

    [Fact]
    public void The_runtime_works_afterwards()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", 64 * s_page);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, 64 * s_page);
        MemFd.Resize(file, 0);
        long sum = 0;
        for (int round = 0; round < 64; round++)
        {
            sum += ReadByte(mapping, round * (int)s_page);
            Assert.Throws<NullReferenceException>(() => LengthOf(null));
            _ = new byte[100_000];
            if (round % 16 == 0)
            {
                GC.Collect(2);
                GC.WaitForPendingFinalizers();
            }
        }

        Assert.Equal(0, sum);
        Assert.Throws<DivideByZeroException>(() => 1 / (int)sum);
    }

    [Fact]
    public void A_sealed_file_needs_no_guard()
    {
        using FileDescriptor file = MemFd.Create("sealed", s_page);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, s_page);
        Assert.False(mapping.IsGuarded);
        Assert.Throws<LinuxException>(() => MemFd.Resize(file, 0));
        Assert.False(mapping.IsTruncated);
    }

    [Fact]
    public void Many_threads_fault_while_guards_come_and_go()
    {
        const int pages = 512;
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", pages * s_page);
        MemoryMapping[] mappings = [.. Enumerable.Range(0, 4).Select(_ => MemoryMapping.Map(file, 0, pages * s_page))];
        MemFd.Resize(file, 0);
        Thread[] threads = [.. mappings.Select(mapping => new Thread(() =>
        {
            for (int page = 0; page < pages; page++)
            {
                _ = ReadByte(mapping, page * (int)s_page);
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        while (threads.Any(thread => thread.IsAlive))
        {
            using FileDescriptor other = MemFd.CreateUnsealed("other", s_page);
            using MemoryMapping mapping = MemoryMapping.Map(other, 0, s_page);
            Assert.False(mapping.IsTruncated);
        }

        Assert.All(mappings, mapping => Assert.True(mapping.IsTruncated));
        Array.ForEach(mappings, mapping => mapping.Dispose());
    }

    [Fact]
    public void The_table_is_bounded_and_reused()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("many", s_page);
        List<MemoryMapping> mappings = [];
        for (int i = 0; i < BusErrorTable.Capacity + 1; i++)
        {
            mappings.Add(MemoryMapping.Map(file, 0, s_page));
        }

        Assert.False(mappings[^1].IsGuarded);
        mappings.ForEach(mapping => mapping.Dispose());
        using MemoryMapping again = MemoryMapping.Map(file, 0, s_page);
        Assert.True(again.IsGuarded);
    }

    [Fact]
    public void A_fault_elsewhere_still_kills()
    {
        int status = RunChild(nameof(Child_faults_outside));
        Assert.Contains(status, new[] { KilledBySignal + SignalAbort, KilledBySignal + SignalBus });
    }

    [Fact]
    public void A_child_that_faults_inside_lives() => Assert.Equal(0, RunChild(nameof(Child_faults_inside)));

    [Fact(Explicit = true)]
    public void Child_faults_inside()
    {
        Assert.SkipUnless(IsChild, "runs in a child process only");
        Reading_a_truncated_mapping_gives_zeroes_and_says_so();
    }

    [Fact(Explicit = true)]
    public void Child_faults_outside()
    {
        Assert.SkipUnless(IsChild, "runs in a child process only");
        Reading_a_truncated_mapping_gives_zeroes_and_says_so();
        using TemporaryFile path = TemporaryFile.OnDisk((long)s_page);
        using FileStream stream = new(path.Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        using MemoryMappedFile file = MemoryMappedFile.CreateFromFile(
            stream, null, 0, MemoryMappedFileAccess.ReadWrite, HandleInheritability.None, leaveOpen: true);
        using MemoryMappedViewAccessor view = file.CreateViewAccessor();
        stream.SetLength(0);
        path.Dispose();
        _ = view.ReadByte(0);
    }

    private static bool IsChild => Environment.GetEnvironmentVariable(ChildVariable) is not null;

    private static int RunChild(string test)
    {
        ProcessStartInfo start = new(Environment.ProcessPath!)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add("--explicit");
        start.ArgumentList.Add("only");
        start.ArgumentList.Add("--filter-method");
        start.ArgumentList.Add($"{typeof(TruncationTests).FullName}.{test}");
        start.Environment[ChildVariable] = "1";
        start.Environment["DOTNET_DbgEnableMiniDump"] = "0";
        using Process child = Process.Start(start)!;
        child.OutputDataReceived += (_, _) => { };
        child.ErrorDataReceived += (_, _) => { };
        child.BeginOutputReadLine();
        child.BeginErrorReadLine();
        Assert.True(child.WaitForExit(TimeSpan.FromSeconds(60)), "the child hangs");
        return child.ExitCode;
    }

    private static int LengthOf(string? text) => text!.Length;

    private static byte ReadByte(MemoryMapping mapping, int offset) => mapping.Segment.Span[offset];
}

// How long an operation takes. No test of anything; run by hand in Release:
//   dotnet run -c Release --project tests/Outboard.Tests -- --explicit only --show-live-output on
//     --filter-class Outboard.Tests.Linux.FileIoMeasurements
using System.Diagnostics;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class FileIoMeasurements(ITestOutputHelper output)
{
    private const int Block = 4096;
    private const int Blocks = 16384;
    private const int Rounds = 7;

    [Theory(Explicit = true)]
    [InlineData(FileIoEngineKind.IoUring, false, 1, 100_000)]
    [InlineData(FileIoEngineKind.IoUring, false, 32, 200_000)]
    [InlineData(FileIoEngineKind.IoUring, true, 1, 5_000)]
    [InlineData(FileIoEngineKind.IoUring, true, 32, 20_000)]
    [InlineData(FileIoEngineKind.Threads, false, 1, 20_000)]
    [InlineData(FileIoEngineKind.Threads, false, 32, 100_000)]
    [InlineData(FileIoEngineKind.Threads, true, 1, 5_000)]
    [InlineData(FileIoEngineKind.Threads, true, 32, 20_000)]
    public void Reads_of_4_KiB(FileIoEngineKind kind, bool direct, int depth, int operations)
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        Fill(path.Path);
        using BlockFile file = BlockFile.Open(path.Path, readOnly: true, direct: direct);
        using AlignedBuffer buffer = new((long)depth * Block);
        using FileIoEngine engine = FileIoEngine.Create(depth, kind);
        using Epoll epoll = new();
        epoll.Add(engine.CompletionDescriptor, 1);
        double[] results = new double[Rounds];
        for (int i = 0; i < Rounds; i++)
        {
            results[i] = Run(engine, epoll, file, buffer, depth, operations);
        }

        Array.Sort(results);
        string what = $"{engine.Name} direct={direct} depth={depth}";
        output.WriteLine($"{what}: best {results[0]:F0} median {results[Rounds / 2]:F0} ns");
    }

    [Fact(Explicit = true)]
    public void Inline_read_of_4_KiB()
    {
        const int operations = 200_000;
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        Fill(path.Path);
        using BlockFile file = BlockFile.Open(path.Path, readOnly: true);
        using AlignedBuffer buffer = new(Block);
        IoSegment[] segments = [buffer.Segment];
        double best = double.MaxValue;
        for (int round = 0; round < Rounds; round++)
        {
            Random random = new(round);
            long start = Stopwatch.GetTimestamp();
            for (int i = 0; i < operations; i++)
            {
                long offset = (long)random.Next(Blocks) * Block;
                if (file.TryReadNow(segments, offset) != Block)
                {
                    _ = file.Read(segments, offset);
                }
            }

            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalNanoseconds / operations);
        }

        output.WriteLine($"TryReadNow: best {best:F0} ns");
    }

    private static double Run(
        FileIoEngine engine, Epoll epoll, BlockFile file, AlignedBuffer buffer, int depth, int operations)
    {
        FileCompletion[] completions = new FileCompletion[depth];
        IoSegment[] segment = new IoSegment[1];
        ulong[] tags = new ulong[1];
        Stack<int> free = new(Enumerable.Range(0, depth));
        Random random = new(1);
        int queued = 0;
        int done = 0;
        long start = Stopwatch.GetTimestamp();
        while (done < operations)
        {
            while (queued < operations && free.TryPop(out int slot))
            {
                segment[0] = buffer.Segment.Slice((long)slot * Block, Block);
                _ = engine.TryRead(file, segment, (long)random.Next(Blocks) * Block, (ulong)slot);
                queued++;
            }

            engine.Submit();
            int count;
            while ((count = engine.Reap(completions)) == 0)
            {
                _ = epoll.Wait(tags, 1000);
            }

            for (int i = 0; i < count; i++)
            {
                Assert.Equal(Block, completions[i].Result);
                free.Push((int)completions[i].Tag);
            }

            done += count;
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / operations;
    }

    private static void Fill(string path)
    {
        using FileStream stream = new(path, FileMode.Open);
        byte[] data = new byte[1 << 20];
        new Random(9).NextBytes(data);
        for (int i = 0; i < Blocks * Block / data.Length; i++)
        {
            stream.Write(data);
        }

        stream.Flush(flushToDisk: true);
    }
}

// What every file I/O engine must do, run for each of them and for each mode of io_uring.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class IoUringDeferredTests : FileIoEngineTests
{
    protected override FileIoEngine Create(int depth) => new IoUringFileEngine(depth);

    [Fact]
    public void Name_says_io_uring()
    {
        using FileIoEngine engine = Create(1);
        Assert.Equal("io_uring", engine.Name);
    }
}

public sealed class IoUringCooperativeTests : FileIoEngineTests
{
    protected override FileIoEngine Create(int depth) => new IoUringFileEngine(depth, skippedModes: 1);

    [Fact]
    public void Is_not_deferred()
    {
        using IoUringFileEngine engine = new(1, skippedModes: 1);
        Assert.False(engine.IsDeferred);
    }
}

public sealed class IoUringPlainTests : FileIoEngineTests
{
    protected override FileIoEngine Create(int depth) => new IoUringFileEngine(depth, skippedModes: 2);
}

public sealed class ThreadFileEngineTests : FileIoEngineTests
{
    protected override FileIoEngine Create(int depth) => new ThreadFileEngine(depth);

    [Fact]
    public void Name_says_threads()
    {
        using FileIoEngine engine = FileIoEngine.Create(1, FileIoEngineKind.Threads);
        Assert.Equal("threads", engine.Name);
    }
}

public abstract class FileIoEngineTests
{
    private const int Block = 4096;

    protected abstract FileIoEngine Create(int depth);

    [Fact]
    public void Writes_and_reads_back()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(64 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(2 * Block);
        using FileIoEngine engine = Create(4);
        IoSegment[] output = [buffer.Segment.Slice(0, Block)];
        IoSegment[] input = [buffer.Segment.Slice(Block, Block)];
        new Random(1).NextBytes(output[0].Span);

        Assert.True(engine.TryWrite(file, output, 5 * Block, tag: 1, durable: true));
        Assert.Equal(new FileCompletion(1, Block), WaitForOne(engine));
        Assert.True(engine.TryRead(file, input, 5 * Block, tag: ulong.MaxValue));
        Assert.Equal(new FileCompletion(ulong.MaxValue, Block), WaitForOne(engine));
        Assert.True(input[0].Span.SequenceEqual(output[0].Span));
        Assert.Equal(0, engine.InFlight);
        Assert.Equal(4, engine.FreeSlots);
    }

    [Fact]
    public void Direct_io_round_trip()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(64 * Block);
        using BlockFile file = BlockFile.Open(path.Path, direct: true);
        using AlignedBuffer buffer = new(2 * Block);
        using FileIoEngine engine = Create(4);
        IoSegment[] output = [buffer.Segment.Slice(0, Block)];
        IoSegment[] input = [buffer.Segment.Slice(Block, Block)];
        output[0].Span.Fill(0x5A);
        Assert.True(engine.TryWrite(file, output, Block, 1));
        Assert.Equal(Block, WaitForOne(engine).Result);
        Assert.True(engine.TryRead(file, input, Block, 2));
        Assert.Equal(Block, WaitForOne(engine).Result);
        Assert.True(input[0].Span.SequenceEqual(output[0].Span));

        // An odd length is refused by the file system, not by us; some take it.
        IoSegment[] odd = [buffer.Segment.Slice(0, 100)];
        Assert.True(engine.TryRead(file, odd, Block, 3));
        Assert.Contains(WaitForOne(engine).Result, new[] { -Errno.InvalidArgument, 100 });
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    [InlineData(1024)]
    public void Scatters_over_many_segments(int count)
    {
        const int piece = 16;
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        byte[] content = new byte[Math.Max(count, 1) * piece];
        new Random(2).NextBytes(content);
        File.WriteAllBytes(path.Path, content);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(content.Length * 2);
        IoSegment[] segments = new IoSegment[count];
        for (int i = 0; i < count; i++)
        {
            segments[i] = buffer.Segment.Slice(i * 2 * piece, piece);
        }

        using FileIoEngine engine = Create(2);
        Assert.True(engine.TryRead(file, segments, 0, 7));
        Assert.Equal(new FileCompletion(7, count * piece), WaitForOne(engine));
        for (int i = 0; i < count; i++)
        {
            Assert.True(segments[i].Span.SequenceEqual(content.AsSpan(i * piece, piece)));
        }
    }

    [Fact]
    public void The_segment_list_is_copied()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(2 * Block);
        using FileIoEngine engine = Create(2);
        IoSegment[] segments = [buffer.Segment.Slice(0, 512), buffer.Segment.Slice(512, 512)];
        segments[0].Span.Fill(1);
        segments[1].Span.Fill(2);
        Assert.True(engine.TryWrite(file, segments, 0, 1));
        Array.Clear(segments);
        Assert.Equal(1024, WaitForOne(engine).Result);
        byte[] content = File.ReadAllBytes(path.Path);
        Assert.Equal(1, content[511]);
        Assert.Equal(2, content[512]);
    }

    [Fact]
    public void More_segments_than_the_kernel_takes_are_the_callers_bug()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using FileIoEngine engine = Create(2);
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.TryRead(file, new IoSegment[1025], 0, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => engine.TryRead(file, new IoSegment[1], -1, 0));
        Assert.Equal(0, engine.InFlight);
    }

    [Fact]
    public void A_read_behind_the_end_is_short()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block + 100);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(2);
        Assert.True(engine.TryRead(file, [buffer.Segment], Block, 1));
        Assert.Equal(100, WaitForOne(engine).Result);
        Assert.True(engine.TryRead(file, [buffer.Segment], 2 * Block, 2));
        Assert.Equal(0, WaitForOne(engine).Result);
    }

    [Fact]
    public void Errors_come_back_as_negative_numbers()
    {
        using TemporaryFile path = TemporaryFile.InMemory(Block);
        using BlockFile readOnly = BlockFile.Open(path.Path, readOnly: true);
        using BlockFile writable = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(4);
        Assert.True(engine.TryWrite(readOnly, [buffer.Segment], 0, 1));
        Assert.Equal(new FileCompletion(1, -Errno.BadDescriptor), WaitForOne(engine));
        Assert.True(engine.TryAllocate(writable, AllocateMode.None, 0, 1L << 50, 2));
        Assert.Equal(new FileCompletion(2, -Errno.NoSpace), WaitForOne(engine));
        Assert.True(engine.TryAllocate(writable, AllocateMode.PunchHole, 0, Block, 3));
        Assert.Equal(-Errno.NotSupported, WaitForOne(engine).Result);
        Assert.True(engine.TryAllocate(writable, AllocateMode.None, 0, 0, 4));
        Assert.Equal(-Errno.InvalidArgument, WaitForOne(engine).Result);

        using FileDescriptor memory = MemFd.Create("read-only", Block);
        using MemoryMapping unwritable = MemoryMapping.Map(memory, 0, Block, writable: false);
        Assert.True(engine.TryRead(writable, [unwritable.Segment], 0, 5));
        Assert.Equal(-Errno.BadAddress, WaitForOne(engine).Result);
    }

    [Fact]
    public void Sync_and_allocate()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        using BlockFile file = BlockFile.Open(path.Path);
        using FileIoEngine engine = Create(4);
        Assert.True(engine.TryAllocate(file, AllocateMode.None, 0, 16 * Block, 1));
        Assert.Equal(new FileCompletion(1, 0), WaitForOne(engine));
        Assert.Equal(16 * Block, file.RefreshSize());
        Assert.True(engine.TryDataSync(file, 2));
        Assert.Equal(new FileCompletion(2, 0), WaitForOne(engine));
    }

    [Fact]
    public void A_full_engine_refuses_and_recovers()
    {
        const int depth = 5;
        using TemporaryFile path = TemporaryFile.OnDisk(16 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(depth * Block);
        using FileIoEngine engine = Create(depth);
        FileCompletion[] completions = new FileCompletion[2];
        for (int round = 0; round < 50; round++)
        {
            for (int i = 0; i < depth; i++)
            {
                Assert.True(engine.TryRead(file, [buffer.Segment.Slice(i * Block, Block)], i * Block, (ulong)i));
            }

            Assert.Equal(0, engine.FreeSlots);
            Assert.False(engine.TryRead(file, [buffer.Segment], 0, 99));
            Assert.False(engine.TryDataSync(file, 99));
            Assert.Equal(depth, engine.InFlight);
            HashSet<ulong> tags = [];
            engine.Submit();
            while (tags.Count < depth)
            {
                int count = engine.Reap(completions);
                for (int i = 0; i < count; i++)
                {
                    Assert.True(tags.Add(completions[i].Tag));
                    Assert.Equal(Block, completions[i].Result);
                }
            }

            Assert.Equal(depth, engine.FreeSlots);
        }
    }

    [Fact]
    public void Nothing_happens_before_submit()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(4);
        buffer.Span.Fill(9);
        FileCompletion[] completions = new FileCompletion[4];
        Assert.Equal(0, engine.Reap(completions));
        Assert.True(engine.TryWrite(file, [buffer.Segment], 0, 1));
        Assert.Equal(0, engine.Reap(completions));
        Assert.Equal(0, File.ReadAllBytes(path.Path)[0]);
        Assert.Equal(Block, WaitForOne(engine).Result);
        Assert.Equal(9, File.ReadAllBytes(path.Path)[0]);
        engine.Submit();
        Assert.Equal(0, engine.Reap(completions));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Thousands_of_single_operations_lose_no_wake_up(bool direct)
    {
        const int operations = 5000;
        using TemporaryFile path = TemporaryFile.OnDisk(64 * Block);
        using BlockFile file = BlockFile.Open(path.Path, direct: direct);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(1);
        using Epoll epoll = new();
        epoll.Add(engine.CompletionDescriptor, 1);
        IoSegment[] segments = [buffer.Segment];
        FileCompletion[] completions = new FileCompletion[1];
        ulong[] tags = new ulong[1];
        for (int i = 0; i < operations; i++)
        {
            Assert.True(engine.TryRead(file, segments, i % 64 * Block, (ulong)i));
            engine.Submit();

            // Every second time straight to sleep: completions that Submit posted must signal, too.
            int count = i % 2 == 0 ? engine.Reap(completions) : 0;
            while (count == 0)
            {
                Assert.True(epoll.Wait(tags, timeoutMs: 10_000) >= 0);
                count = engine.Reap(completions);
                Assert.True(count > 0 || engine.InFlight == 1);
            }

            Assert.Equal(new FileCompletion((ulong)i, Block), completions[0]);
        }
    }

    [Fact]
    public void Deep_queues_lose_no_wake_up()
    {
        const int depth = 64;
        const int operations = 20_000;
        using TemporaryFile path = TemporaryFile.OnDisk(256 * Block);
        using BlockFile file = BlockFile.Open(path.Path, direct: true);
        using AlignedBuffer buffer = new(depth * Block);
        using FileIoEngine engine = Create(depth);
        using Epoll epoll = new();
        epoll.Add(engine.CompletionDescriptor, 1);
        FileCompletion[] completions = new FileCompletion[8];
        ulong[] tags = new ulong[1];
        Random random = new(3);
        int queued = 0;
        int done = 0;
        while (done < operations)
        {
            int burst = random.Next(1, depth);
            while (burst-- > 0 && queued < operations && engine.FreeSlots > 0)
            {
                IoSegment segment = buffer.Segment.Slice(queued % depth * Block, Block);
                Assert.True(engine.TryRead(file, [segment], random.Next(256) * Block, (ulong)queued++));
            }

            engine.Submit();
            Assert.Equal(1, epoll.Wait(tags, timeoutMs: 10_000));
            int count;
            do
            {
                count = engine.Reap(completions);
                done += count;
            }
            while (count > 0);
            Assert.Equal(queued - done, engine.InFlight);
        }

        Assert.Equal(operations, done);
    }

    [Fact]
    public void Allocates_nothing_per_request()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(64 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(4 * Block);
        using FileIoEngine engine = Create(8);
        using Epoll epoll = new();
        epoll.Add(engine.CompletionDescriptor, 1);
        IoSegment[] one = [buffer.Segment.Slice(0, Block)];
        IoSegment[] two = [buffer.Segment.Slice(Block, Block), buffer.Segment.Slice(2 * Block, Block)];
        FileCompletion[] completions = new FileCompletion[8];
        ulong[] tags = new ulong[1];
        long before = 0;
        for (int round = 0; round < 400; round++)
        {
            if (round == 100)
            {
                before = GC.GetAllocatedBytesForCurrentThread();
            }

            _ = engine.TryRead(file, one, 0, 1);
            _ = engine.TryWrite(file, two, Block, 2);
            _ = engine.TryDataSync(file, 3);
            engine.Submit();
            int done = 0;
            while (done < 3)
            {
                int count = engine.Reap(completions);
                done += count;
                if (count == 0)
                {
                    _ = epoll.Wait(tags, 1000);
                }
            }
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    [Fact]
    public void Serves_more_files_than_its_table_holds()
    {
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(4);
        for (int i = 0; i < 40; i++)
        {
            using TemporaryFile path = TemporaryFile.OnDisk(Block);
            File.WriteAllBytes(path.Path, [.. Enumerable.Repeat((byte)i, Block)]);
            using BlockFile file = BlockFile.Open(path.Path);
            Assert.True(engine.TryRead(file, [buffer.Segment], 0, 1));
            Assert.Equal(Block, WaitForOne(engine).Result);
            Assert.Equal((byte)i, buffer.Span[77]);
            if (i % 3 == 0)
            {
                engine.Release(file);
            }
        }
    }

    [Fact]
    public void A_released_file_is_really_closed()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = Create(4);
        using BlockFile other = BlockFile.Open(path.Path);
        using (BlockFile file = BlockFile.Open(path.Path))
        {
            Assert.True(file.TryLock(exclusive: true));
            Assert.True(engine.TryRead(file, [buffer.Segment], 0, 1));
            Assert.Equal(Block, WaitForOne(engine).Result);
            Assert.False(other.TryLock(exclusive: true));
            engine.Release(file);
        }

        Assert.True(SpinWait.SpinUntil(() => other.TryLock(exclusive: true), TimeSpan.FromSeconds(20)));
    }

    [Fact]
    public void Disposal_waits_for_what_is_in_flight()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(64 * Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        buffer.Span.Fill(7);
        using (FileIoEngine engine = Create(32))
        {
            for (int i = 0; i < 32; i++)
            {
                Assert.True(engine.TryWrite(file, [buffer.Segment], i * Block, 0));
            }
        }

        Assert.Equal(7, File.ReadAllBytes(path.Path)[(32 * Block) - 1]);
    }

    [Fact]
    public void Another_thread_may_dispose_an_idle_engine_only()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(Block);
        using BlockFile file = BlockFile.Open(path.Path);
        using AlignedBuffer buffer = new(Block);
        FileIoEngine? idle = null;
        FileIoEngine? busy = null;
        Thread worker = new(() =>
        {
            idle = Create(2);
            Assert.True(idle.TryRead(file, [buffer.Segment], 0, 1));
            _ = WaitForOne(idle);
            busy = Create(2);
            Assert.True(busy.TryRead(file, [buffer.Segment], 0, 1));
        });
        worker.Start();
        worker.Join();
        idle!.Dispose();
        Assert.Throws<InvalidOperationException>(busy!.Dispose);
    }

    private protected static FileCompletion WaitForOne(FileIoEngine engine)
    {
        Span<FileCompletion> completion = stackalloc FileCompletion[1];
        engine.Submit();
        SpinWait spin = default;
        long deadline = Environment.TickCount64 + 10_000;
        while (engine.Reap(completion) == 0)
        {
            Assert.True(Environment.TickCount64 < deadline, "no completion");
            spin.SpinOnce();
        }

        return completion[0];
    }
}

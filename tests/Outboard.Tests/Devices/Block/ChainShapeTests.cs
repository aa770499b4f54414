// Requests of unusual but legal shape: very long, very large, across memory regions, on small and large queues.
using System.Text;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Tests.Linux;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class ChainShapeTests
{
    private const int Sector = BlockConfig.SectorBytes;

    [Theory]
    [InlineData("serial-0123456789abc", 20)]
    [InlineData("serial-0123456789abc", 0)]
    [InlineData("serial-0123456789abc", 1)]
    [InlineData("serial-0123456789abc", 19)]
    [InlineData("serial-0123456789abc", 21)]
    [InlineData("serial-0123456789abc", 512)]
    [InlineData("short", 20)]
    [InlineData("", 20)]
    public async Task The_identity_fills_what_there_is(string serial, int bytes)
    {
        BlockRigOptions options = new() { Device = new BlockDeviceOptions { Serial = serial } };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Sector), options);
        DriverBuffer data = rig.Allocate(bytes + 8);
        data.Span.Fill(0xCC);
        DriverBuffer[] parts = bytes < 2
            ? [data.Slice(0, (uint)bytes)]
            : [data.Slice(0, 1), data.Slice(1, (uint)bytes - 1)];
        (BlockStatus status, uint written) = rig.Request(BlockRequestType.GetId, 0, parts, isWritten: true);
        Assert.Equal(BlockStatus.Ok, status);
        int given = Math.Min(bytes, BlockConfig.IdBytes);
        Assert.Equal((uint)given + 1, written);
        byte[] expected = new byte[BlockConfig.IdBytes];
        Encoding.ASCII.GetBytes(serial).CopyTo(expected, 0);
        Assert.Equal(expected[..given], data.Span[..given].ToArray());
        Assert.True(data.Span[given..].IndexOfAnyExcept((byte)0xCC) < 0);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Empty_reads_and_writes_succeed(bool onFile)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(1 << 20);
        Disk disk = onFile ? FileDisk.Open(file.Path) : new MemoryDisk(1 << 20);
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        DriverBuffer data = rig.Allocate(Sector);
        Assert.Equal(BlockStatus.Ok, rig.Read(0));
        Assert.Equal(BlockStatus.Ok, rig.Write(0));
        Assert.Equal(BlockStatus.Ok, rig.Read(2048));
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data.Slice(0, 0), data.Slice(0, 0)));
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data.Slice(0, 0), data.Slice(0, 0)));
    }

    [Theory]
    [InlineData(2, 4)]
    [InlineData(2, 0)]
    [InlineData(4, 0)]
    [InlineData(8, 0)]
    [InlineData(64, 0)]
    [InlineData(256, 3)]
    [InlineData(1024, 0)]
    public async Task Queues_of_every_size_serve(int queueSize, int indirectEntries)
    {
        BlockRigOptions options = new() { QueueSize = queueSize, IndirectEntries = indirectEntries };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(1 << 20), options);

        // Header and status in one ring entry each, data in one of them: two descriptors are enough.
        DriverBuffer request = rig.Allocate(BlockRequestHeader.Bytes + Sector);
        DriverBuffer reply = rig.Allocate(Sector + 1);
        for (int i = 0; i < 3 * queueSize; i++)
        {
            ulong sector = (ulong)i % 2048;
            request.Span[BlockRequestHeader.Bytes..].Fill((byte)i);
            BlockRig.WriteHeader(request.Span, BlockRequestType.Out, sector);
            rig.Status.Span[0] = BlockRig.NoStatus;
            Assert.Equal(1u, rig.Send([request], [rig.Status]));
            Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
            BlockRig.WriteHeader(rig.Header.Span, BlockRequestType.In, sector);
            Assert.Equal((uint)Sector + 1, rig.Send([rig.Header], [reply]));
            Assert.Equal((byte)BlockStatus.Ok, reply.Span[Sector]);
            Assert.True(reply.Span[..Sector].IndexOfAnyExcept((byte)i) < 0);
        }
    }

    [Fact]
    public async Task A_full_queue_is_answered_to_the_last_request()
    {
        BlockRigOptions options = new() { QueueSize = 1024, IndirectEntries = 3, MemoryBytes = 64 << 20 };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(1 << 20), options);
        DriverBuffer headers = rig.Allocate(1024 * BlockRequestHeader.Bytes);
        DriverBuffer data = rig.Allocate(1024 * Sector);
        DriverBuffer statuses = rig.Allocate(1024);
        statuses.Span.Fill(BlockRig.NoStatus);
        for (uint i = 0; i < 1024; i++)
        {
            DriverBuffer header = headers.Slice(i * BlockRequestHeader.Bytes, BlockRequestHeader.Bytes);
            BlockRig.WriteHeader(header.Span, BlockRequestType.In, i);
            rig.Add([header], [data.Slice(i * Sector, Sector), statuses.Slice(i, 1)], i);
        }

        rig.Publish();
        HashSet<uint> seen = [];
        for (int i = 0; i < 1024; i++)
        {
            (uint token, uint written) = rig.Collect();
            Assert.True(seen.Add(token));
            Assert.Equal((uint)Sector + 1, written);
        }

        Assert.True(statuses.Span.IndexOfAnyExcept((byte)BlockStatus.Ok) < 0);
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("buffered")]
    [InlineData("direct")]
    public async Task Requests_of_several_MiB(string kind)
    {
        const int Bytes = 6 << 20;
        using TemporaryFile file = TemporaryFile.OnDisk(16 << 20);
        await using BlockRig rig = await BlockRig.StartAsync(
            OpenDisk(kind, file, 16 << 20), new BlockRigOptions { MemoryBytes = 32 << 20 });
        DriverBuffer source = rig.Allocate(Bytes);
        new Random(1).NextBytes(source.Span);
        Assert.Equal(BlockStatus.Ok, rig.Write(8, source));
        DriverBuffer target = rig.Allocate(Bytes);
        Assert.Equal(BlockStatus.Ok, rig.Read(8, target.Slice(0, 5 << 20), target.Slice(5 << 20, 1 << 20)));
        Assert.True(source.Span.SequenceEqual(target.Span));
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("buffered")]
    [InlineData("direct")]
    public async Task Requests_of_a_thousand_segments(string kind)
    {
        // One descriptor each for header and status, 1022 for data: the longest indirect table that is followed.
        const uint Segments = 1022;
        using TemporaryFile file = TemporaryFile.OnDisk(16 << 20);
        BlockRigOptions options = new() { IndirectEntries = 1024, QueueSize = 4 };
        await using BlockRig rig = await BlockRig.StartAsync(OpenDisk(kind, file, 16 << 20), options);
        DriverBuffer source = rig.Allocate((int)Segments * Sector);
        new Random(2).NextBytes(source.Span);
        DriverBuffer[] pieces = Sectors(source);
        Assert.Equal(BlockStatus.Ok, rig.Write(8, pieces));
        byte[] expected = source.Span.ToArray();
        source.Span.Clear();
        Assert.Equal(BlockStatus.Ok, rig.Read(8, pieces));
        Assert.True(source.Span.SequenceEqual(expected));
    }

    [Theory]
    [InlineData("memory", BlockStatus.Ok)]
    [InlineData("buffered", BlockStatus.IoError)]
    [InlineData("direct", BlockStatus.IoError)]
    public async Task More_segments_than_one_system_call_takes_get_a_status(string kind, BlockStatus expected)
    {
        const uint Segments = 2000;
        using TemporaryFile file = TemporaryFile.OnDisk(16 << 20);
        BlockRigOptions options = new()
        {
            QueueSize = 2048,
            Device = new BlockDeviceOptions { QueueSize = 2048 },
        };
        await using BlockRig rig = await BlockRig.StartAsync(OpenDisk(kind, file, 16 << 20), options);
        DriverBuffer source = rig.Allocate((int)Segments * Sector);
        DriverBuffer[] pieces = Sectors(source);
        Assert.Equal(expected, rig.Write(8, pieces));
        Assert.Equal(BlockStatus.Ok, rig.Write(8, pieces.AsSpan(0, 8)));
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("buffered")]
    [InlineData("direct")]
    public async Task Chains_may_cross_memory_regions(string kind)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(1 << 20);
        BlockRigOptions options = new() { MemoryBytes = 1 << 20, SecondRegionBytes = 1 << 20 };
        await using BlockRig rig = await BlockRig.StartAsync(OpenDisk(kind, file, 1 << 20), options);
        DriverMemory second = rig.Second!;
        DriverBuffer high = second.Allocate(64 << 10, 4096);
        DriverBuffer low = AllocateRest(rig.Memory);
        Assert.Equal(rig.Memory.GuestAddress + rig.Memory.SizeBytes, high.GuestAddress);
        foreach (uint before in (uint[])[1, 7, 512, 4096, 12345])
        {
            const int Bytes = 32 << 10;
            byte[] expected = new byte[Bytes];
            new Random((int)before).NextBytes(expected);
            Span<byte> first = low.Span[^(int)before..];
            expected.AsSpan(0, (int)before).CopyTo(first);
            expected.AsSpan((int)before).CopyTo(high.Span);

            // The buffer begins in the first region and ends in the second; only its length is taken from the memory.
            DriverBuffer across = new(high.GuestAddress - before, high.Memory.Slice(0, Bytes));
            Assert.Equal(BlockStatus.Ok, rig.Write(8, across));
            first.Clear();
            high.Span.Clear();
            Assert.Equal(BlockStatus.Ok, rig.Read(8, across));
            Assert.Equal(expected, (byte[])[.. first, .. high.Span[..(Bytes - (int)before)]]);
        }

        // A header across the regions, with its data behind it.
        DriverBuffer header = new(high.GuestAddress - 5, high.Memory.Slice(0, BlockRequestHeader.Bytes + Sector));
        byte[] bytes = new byte[BlockRequestHeader.Bytes];
        BlockRig.WriteHeader(bytes, BlockRequestType.Out, 100);
        bytes.AsSpan(0, 5).CopyTo(low.Span[^5..]);
        bytes.AsSpan(5).CopyTo(high.Span);
        high.Span.Slice(BlockRequestHeader.Bytes - 5, Sector).Fill(0x99);
        rig.Status.Span[0] = BlockRig.NoStatus;
        Assert.Equal(1u, rig.Send([header], [rig.Status]));
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
        DriverBuffer data = second.Allocate(Sector, 4096);
        Assert.Equal(BlockStatus.Ok, rig.Read(100, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0x99) < 0);
    }

    internal static Disk OpenDisk(string kind, TemporaryFile file, long sizeBytes) => kind switch
    {
        "memory" => new MemoryDisk(sizeBytes),
        "buffered" => FileDisk.Open(file.Path),
        "direct" => FileDisk.Open(file.Path, direct: true),
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    private static DriverBuffer[] Sectors(DriverBuffer buffer) =>
        [.. Enumerable.Range(0, (int)buffer.Length / Sector).Select(i => buffer.Slice((uint)i * Sector, Sector))];

    /// <summary>Everything up to the end of the memory, whose last bytes border on the next region.</summary>
    private static DriverBuffer AllocateRest(DriverMemory memory)
    {
        DriverBuffer here = memory.Allocate(1);
        return memory.Allocate((uint)(memory.SizeBytes - (here.GuestAddress - memory.GuestAddress) - 64));
    }
}

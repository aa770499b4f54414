// Thousands of requests of random shape against an array of bytes that says what must be there. Requests that are in
// flight together touch different sectors, since a disk promises no order between them.
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class DiskModelTests
{
    private const int Sector = BlockConfig.SectorBytes;
    private const int DiskBytes = 4 << 20;
    private const int Together = 24;
    private const int LaneBytes = DiskBytes / Together / 4096 * 4096;
    private const int LaneMemory = 512 << 10;

    [Theory]
    [InlineData("memory", FileIoEngineKind.Automatic, 256, 4000)]
    [InlineData("buffered", FileIoEngineKind.IoUring, 256, 4000)]
    [InlineData("buffered", FileIoEngineKind.Threads, 256, 4000)]
    [InlineData("buffered", FileIoEngineKind.IoUring, 1, 1000)]
    [InlineData("buffered", FileIoEngineKind.Threads, 2, 1000)]
    [InlineData("direct", FileIoEngineKind.IoUring, 256, 2000)]
    [InlineData("direct", FileIoEngineKind.Threads, 256, 1000)]
    [InlineData("direct", FileIoEngineKind.IoUring, 1, 500)]
    [InlineData("direct", FileIoEngineKind.Threads, 2, 500)]
    public async Task Holds_what_was_written(string kind, FileIoEngineKind engine, int depth, int requests)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(DiskBytes);
        BlockRigOptions options = new()
        {
            Worker = new QueueWorkerOptions { FileEngine = engine, FileDepth = depth },
            QueueSize = 1024,
            MemoryBytes = (LaneMemory * Together) + (8 << 20),
        };
        await using BlockRig rig = await BlockRig.StartAsync(ChainShapeTests.OpenDisk(kind, file, DiskBytes), options);
        Random random = new(kind.Length + (int)engine + depth);
        byte[] model = new byte[DiskBytes];
        Lane[] lanes = [.. Enumerable.Range(0, Together).Select(i => new Lane(rig, i))];
        for (int sent = 0; sent < requests; sent += Together)
        {
            foreach (Lane lane in lanes)
            {
                lane.Prepare(random, model, unaligned: random.Next(2) == 0);
                rig.Add(lane.Readable, lane.Writable, (uint)lane.Index);
                if (random.Next(3) == 0)
                {
                    rig.Publish();
                }
            }

            rig.Publish();
            for (int i = 0; i < Together; i++)
            {
                (uint token, uint written) = rig.Collect();
                lanes[token].Check(model, written);
            }
        }

        Assert.Equal(BlockStatus.Ok, rig.Flush());
        await rig.StopQueueAsync();
        if (kind != "memory")
        {
            byte[] image = await File.ReadAllBytesAsync(file.Path, TestContext.Current.CancellationToken);
            Assert.True(model.AsSpan().SequenceEqual(image));
        }
    }

    /// <summary>One request at a time, in a part of the disk and of the memory of its own.</summary>
    private sealed class Lane
    {
        private readonly DriverBuffer _header;
        private readonly DriverBuffer _range;
        private readonly DriverBuffer _status;
        private readonly DriverBuffer _memory;
        private readonly List<DriverBuffer> _data = [];
        private BlockRequestType _type;
        private int _offset;
        private int _bytes;

        internal Lane(BlockRig rig, int index)
        {
            Index = index;
            _header = rig.Allocate(BlockRequestHeader.Bytes, 8);
            _range = rig.Allocate(BlockRange.Bytes, 8);
            _status = rig.Allocate(1, 1);
            _memory = rig.Allocate(LaneMemory);
        }

        internal int Index { get; }

        internal DriverBuffer[] Readable { get; private set; } = [];

        internal DriverBuffer[] Writable { get; private set; } = [];

        internal void Prepare(Random random, byte[] model, bool unaligned)
        {
            int sectors = LaneBytes / Sector;
            int first = random.Next(sectors);
            int most = sectors - first + 1;
            int count = random.Next(random.Next(5) == 0 ? most : Math.Min(17, most));
            _offset = (Index * LaneBytes) + (first * Sector);
            _bytes = count * Sector;
            _type = random.Next(12) switch
            {
                < 5 => BlockRequestType.In,
                < 9 => BlockRequestType.Out,
                9 => BlockRequestType.Flush,
                10 => BlockRequestType.Discard,
                _ => BlockRequestType.WriteZeroes,
            };
            bool isRange = _type is BlockRequestType.Discard or BlockRequestType.WriteZeroes;
            bool hasSector = _type is BlockRequestType.In or BlockRequestType.Out;
            BlockRig.WriteHeader(_header.Span, _type, hasSector ? (ulong)(_offset / Sector) : 0);
            _status.Span[0] = BlockRig.NoStatus;
            _data.Clear();
            if (isRange)
            {
                uint flags = _type == BlockRequestType.WriteZeroes ? (uint)random.Next(2) : 0;
                BlockRange range = new((ulong)(_offset / Sector), (uint)count, flags);
                System.Runtime.InteropServices.MemoryMarshal.Write(_range.Span, in range);
                _data.Add(_range);
            }
            else if (_type != BlockRequestType.Flush)
            {
                Scatter(random, unaligned);
            }

            bool isRead = _type == BlockRequestType.In;
            if (_type == BlockRequestType.Out)
            {
                WriteRandom(random, model);
            }

            Readable = isRead ? [_header] : [_header, .. _data];
            Writable = isRead ? [.. _data, _status] : [_status];
        }

        internal void Check(byte[] model, uint written)
        {
            Assert.Equal((byte)BlockStatus.Ok, _status.Span[0]);
            Assert.Equal(_type == BlockRequestType.In ? (uint)_bytes + 1 : 1, written);
            Span<byte> expected = model.AsSpan(_offset, _bytes);
            if (_type is BlockRequestType.Discard or BlockRequestType.WriteZeroes)
            {
                expected.Clear();
            }
            else if (_type == BlockRequestType.In)
            {
                foreach (DriverBuffer part in _data)
                {
                    Span<byte> stored = expected[..(int)part.Length];
                    Assert.True(part.Span.SequenceEqual(stored), $"lane {Index}: {_bytes} bytes at {_offset}");
                    expected = expected[(int)part.Length..];
                }
            }
        }

        /// <summary>Cuts the request's bytes into pieces, at addresses with gaps between them.</summary>
        private void Scatter(Random random, bool unaligned)
        {
            int unit = unaligned ? 1 : Sector;
            int at = unaligned ? random.Next(5000) : Sector * random.Next(9);
            int left = _bytes;
            for (int pieces = 0; left > 0; pieces++)
            {
                int part = pieces == 7 ? left : unit * random.Next(left / unit + 1);
                _data.Add(_memory.Slice((uint)at, (uint)part));
                at += part + (unit * random.Next(unaligned ? 5000 : 9));
                left -= part;
            }
        }

        private void WriteRandom(Random random, byte[] model)
        {
            int at = _offset;
            foreach (DriverBuffer part in _data)
            {
                random.NextBytes(part.Span);
                part.Span.CopyTo(model.AsSpan(at));
                at += (int)part.Length;
            }
        }
    }
}

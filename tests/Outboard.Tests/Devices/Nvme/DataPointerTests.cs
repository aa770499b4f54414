// The parser of PRPs and SGLs alone, on random lists: it ends, covers exactly the data, and says no otherwise.
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class DataPointerTests
{
    private readonly DataPointer _parser = new();

    [Theory]
    [InlineData(4096, 1)]
    [InlineData(65536, 2)]
    public void Prps_of_any_length_and_offset_cover_the_data(int page, int seed)
    {
        Random random = new(seed);
        for (int round = 0; round < 500; round++)
        {
            TestLists lists = new();
            uint length = (uint)random.Next(1, DataPointer.MaxTransferBytes + 1);
            List<ulong> pages = [];
            uint offset = (uint)random.Next(page / 4) * 4;
            NvmeCommand command = MakePages(random, lists, length, offset, page, pages);
            Assert.Equal(NvmeStatus.Success, _parser.Parse(in command, length, page, lists));
            Assert.Equal(length, Sum());

            // page after page, at the places that the list says
            ulong left = length;
            List<DmaRange> expected = [];
            for (int i = 0; i < pages.Count; i++)
            {
                uint part = (uint)Math.Min(left, (ulong)page - (i == 0 ? offset : 0));
                expected.Add(new DmaRange(pages[i] + (i == 0 ? offset : 0), part));
                left -= part;
            }

            Assert.Equal(Join(expected), _parser.Ranges.ToArray());
        }
    }

    [Fact]
    public void Random_garbage_ends_in_bounds()
    {
        Random random = new(3);
        for (int round = 0; round < 20_000; round++)
        {
            TestLists lists = new();
            for (int i = 0; i < 3; i++)
            {
                byte[] page = new byte[4096];
                FillGarbage(random, page);
                lists.Pages[(ulong)(i + 1) << 12] = page;
            }

            NvmeCommand command = new()
            {
                Flags = (byte)(random.Next(4) << 6),
                Pointer1 = Address(random),
                Pointer2 = random.Next(2) == 0
                    ? Address(random)
                    : (uint)random.Next(0, 4200) | ((ulong)random.Next(16) << 60),
            };
            uint length = (uint)random.Next(1, DataPointer.MaxTransferBytes + 1);
            NvmeStatus status = _parser.Parse(in command, length, 4096, lists);
            Assert.True(_parser.Ranges.Length <= DataPointer.MaxRanges);
            Assert.True(Sum() <= length);
            Assert.True(status != NvmeStatus.Success || Sum() == length);
            Assert.NotEqual(NvmeStatus.Pending, status);
            Assert.True(lists.Reads <= 2 * DataPointer.MaxRanges);
        }
    }

    [Fact]
    public void A_page_list_that_is_its_own_continuation_ends()
    {
        TestLists lists = new();
        byte[] page = new byte[4096];
        for (int i = 0; i < 512; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(i * 8), 0x1000);
        }

        lists.Pages[0x1000] = page;
        NvmeCommand command = new() { Pointer1 = 0x1000, Pointer2 = 0x1ff8 };
        Assert.Equal(NvmeStatus.Success, _parser.Parse(in command, DataPointer.MaxTransferBytes, 4096, lists));
        Assert.Equal((uint)DataPointer.MaxTransferBytes, Sum());
    }

    [Fact]
    public void Lists_that_have_to_be_fetched_give_the_same()
    {
        Random random = new(4);
        for (int round = 0; round < 200; round++)
        {
            TestLists source = new();
            uint length = (uint)random.Next(1, DataPointer.MaxTransferBytes + 1);
            NvmeCommand command = MakePages(random, source, length, (uint)random.Next(1024) * 4, 4096, []);
            Assert.Equal(NvmeStatus.Success, _parser.Parse(in command, length, 4096, source));
            DmaRange[] expected = _parser.Ranges.ToArray();
            FetchedLists fetched = new();
            while (_parser.Parse(in command, length, 4096, fetched) == NvmeStatus.Pending)
            {
                byte[] piece = new byte[fetched.Wanted.Length];
                source.TryRead(fetched.Wanted.Address, piece);
                fetched.Add(piece);
                fetched.Rewind();
            }

            Assert.Equal(expected, _parser.Ranges.ToArray());
        }
    }

    private uint Sum() => (uint)_parser.Ranges.ToArray().Sum(range => range.Length);

    private static ulong Address(Random random) =>
        ((ulong)random.Next(0, 4) << 12) + (ulong)(random.Next(3) == 0 ? random.Next(4096) : 0);

    /// <summary>Half of it looks like lists.</summary>
    private static void FillGarbage(Random random, byte[] page)
    {
        random.NextBytes(page);
        for (int at = 0; at < page.Length && random.Next(4) > 0; at += 16)
        {
            if (random.Next(2) == 0)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(at), Address(random));
                BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(at + 8), Address(random));
            }
            else
            {
                MemoryMarshal.Write(page.AsSpan(at), new SglDescriptor
                {
                    Address = Address(random),
                    Length = (uint)random.Next(0, 300) * 16,
                    ReservedAndType =
                        (uint)(random.Next(5) switch { 0 => 0x20, 1 => 0x30, 2 => random.Next(256), _ => 0 }) << 24,
                });
            }
        }
    }

    private static NvmeCommand MakePages(
        Random random, TestLists lists, uint length, uint offset, int page, List<ulong> pages)
    {
        ulong next = 1UL << 40;
        ulong take() => next += (ulong)(page * random.Next(1, 3));
        int count = (int)((length + offset + (uint)page - 1) / (uint)page);
        for (int i = 0; i < count; i++)
        {
            pages.Add(take());
        }

        NvmeCommand command = new() { Pointer1 = pages[0] + offset };
        if (count == 2)
        {
            command.Pointer2 = pages[1];
        }
        else if (count > 2)
        {
            // The list begins anywhere in its page.
            ulong list = take() + ((ulong)random.Next(page / 8) * 8);
            command.Pointer2 = list;
            for (int i = 1; i < count; i++)
            {
                if ((list & ((ulong)page - 1)) == (ulong)page - 8 && i < count - 1)
                {
                    ulong more = take();
                    Write(lists, list, more);
                    list = more;
                }

                Write(lists, list, pages[i]);
                list += 8;
            }
        }

        return command;
    }

    private static void Write(TestLists lists, ulong address, ulong value)
    {
        ulong start = address & ~4095UL;
        if (!lists.Pages.TryGetValue(start, out byte[]? page))
        {
            lists.Pages[start] = page = new byte[4096];
        }

        BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan((int)(address - start)), value);
    }

    private static List<DmaRange> Join(List<DmaRange> ranges)
    {
        List<DmaRange> joined = [];
        foreach (DmaRange range in ranges)
        {
            if (joined.Count > 0 && joined[^1].Address + joined[^1].Length == range.Address)
            {
                joined[^1] = joined[^1] with { Length = joined[^1].Length + range.Length };
            }
            else
            {
                joined.Add(range);
            }
        }

        return joined;
    }
}

// Where a command's data lies in guest memory: PRPs and SGLs become ranges. NVM Express Base "Physical Region Page
// Entry and List" and "Scatter Gather List (SGL)".
//
// The parser sees lists through GuestLists: in mapped memory they are there at once; elsewhere they have to be fetched,
// and then the parser runs again over what was fetched so far. Each list is read once, into a copy. Whatever a guest
// writes, the parser ends: a PRP list gives data with every page but the first, and SGL descriptors are counted.
// Not here: bit buckets, keyed and transport descriptors, metadata.
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>A range of guest memory.</summary>
internal readonly record struct DmaRange(ulong Address, uint Length);

/// <summary>Where lists are read from.</summary>
internal abstract class GuestLists
{
    /// <summary>Copies a part of a list.</summary>
    /// <returns>False when it is not there (yet).</returns>
    internal abstract bool TryRead(ulong address, Span<byte> destination);
}

/// <summary>Parses data pointers. Used by one thread; keeps the last result.</summary>
internal sealed class DataPointer
{
    /// <summary>Most data of a command, told as MDTS: 1 MiB, 256 pages of 4 KiB.</summary>
    internal const int MaxTransferBytes = 1 << 20;

    internal const int MaxTransferPagesShift = 8;

    /// <summary>
    /// Most pieces, and most SGL descriptors, of a command: what one system call takes (IOV_MAX), and far more than the
    /// 256 pages of the largest transfer.
    /// </summary>
    internal const int MaxRanges = 1024;

    private const int ListBytes = 4096;
    private readonly DmaRange[] _ranges = new DmaRange[MaxRanges];
    private readonly byte[] _list = new byte[ListBytes];
    private int _count;
    private uint _left;

    /// <summary>The ranges of the last command, those that follow each other joined.</summary>
    internal ReadOnlySpan<DmaRange> Ranges => _ranges.AsSpan(0, _count);

    /// <summary>Finds the ranges of a command's data.</summary>
    /// <param name="command">The command.</param>
    /// <param name="length">Bytes, at least 1.</param>
    /// <param name="pageBytes">Bytes of a memory page.</param>
    /// <param name="lists">Where lists are read.</param>
    /// <returns>Success, an error, or <see cref="NvmeStatus.Pending"/> when a list is not there.</returns>
    internal NvmeStatus Parse(scoped in NvmeCommand command, uint length, int pageBytes, GuestLists lists)
    {
        _count = 0;
        _left = length;
        return command.PointerKind switch
        {
            0 => ParsePages(command.Pointer1, command.Pointer2, (uint)pageBytes, lists),
            1 or 2 => ParseSgl(in command, lists),
            _ => NvmeStatus.InvalidField,
        };
    }

    private NvmeStatus ParsePages(ulong first, ulong second, uint page, GuestLists lists)
    {
        ulong mask = page - 1;
        if ((first & 3) != 0)
        {
            return NvmeStatus.PrpOffsetInvalid;
        }

        Take(first, page - (uint)(first & mask));
        if (_left == 0)
        {
            return NvmeStatus.Success;
        }

        if (_left > page)
        {
            return (second & 7) != 0 ? NvmeStatus.PrpOffsetInvalid : ParsePageLists(second, page, lists);
        }

        if ((second & mask) != 0)
        {
            return NvmeStatus.PrpOffsetInvalid;
        }

        Take(second, page);
        return NvmeStatus.Success;
    }

    private NvmeStatus ParsePageLists(ulong at, uint page, GuestLists lists)
    {
        ulong mask = page - 1;
        while (_left > 0)
        {
            uint room = (page - (uint)(at & mask)) / sizeof(ulong);
            uint needed = (_left + page - 1) / page;
            uint link = needed > room ? room - 1 : uint.MaxValue;
            uint count = Math.Min(needed, room);
            for (uint i = 0; i < count; i++)
            {
                uint inChunk = i % (ListBytes / sizeof(ulong));
                if (inChunk == 0)
                {
                    int bytes = (int)Math.Min((count - i) * sizeof(ulong), ListBytes);
                    if (!lists.TryRead(at + (i * sizeof(ulong)), _list.AsSpan(0, bytes)))
                    {
                        return NvmeStatus.Pending;
                    }
                }

                ulong entry = MemoryMarshal.Cast<byte, ulong>(_list)[(int)inChunk];
                if ((entry & mask) != 0)
                {
                    return NvmeStatus.PrpOffsetInvalid;
                }

                if (i == link)
                {
                    at = entry;
                }
                else
                {
                    Take(entry, page);
                }
            }
        }

        return NvmeStatus.Success;
    }

    private NvmeStatus ParseSgl(scoped in NvmeCommand command, GuestLists lists)
    {
        SglDescriptor descriptor = new()
        {
            Address = command.Pointer1,
            Length = (uint)command.Pointer2,
            ReservedAndType = (uint)(command.Pointer2 >> 32),
        };
        int seen = 0;
        bool isData = descriptor.Type == SglDescriptor.DataBlock;
        if (isData)
        {
            Take(descriptor.Address, descriptor.Length);
        }

        while (!isData && _left > 0)
        {
            if (descriptor.Type is not (SglDescriptor.Segment or SglDescriptor.LastSegment))
            {
                return NvmeStatus.SglTypeInvalid;
            }

            NvmeStatus status = ParseSegment(ref descriptor, ref seen, lists, out isData);
            if (status != NvmeStatus.Success)
            {
                return status;
            }
        }

        return _left > 0 ? NvmeStatus.DataSglLengthInvalid : NvmeStatus.Success;
    }

    /// <summary>Takes the data of one segment.</summary>
    /// <param name="segment">The segment; then the one that follows.</param>
    /// <param name="seen">Descriptors so far.</param>
    /// <param name="lists">Where it is read.</param>
    /// <param name="isLast">Whether no segment follows.</param>
    private NvmeStatus ParseSegment(ref SglDescriptor segment, ref int seen, GuestLists lists, out bool isLast)
    {
        isLast = segment.Type == SglDescriptor.LastSegment;
        if (segment.Length == 0 || segment.Length % SglDescriptor.Bytes != 0)
        {
            return NvmeStatus.InvalidSglSegment;
        }

        if (segment.Length / SglDescriptor.Bytes > (uint)(MaxRanges - seen))
        {
            return NvmeStatus.InvalidSglCount;
        }

        ulong at = segment.Address;
        int count = (int)(segment.Length / SglDescriptor.Bytes);
        seen += count;
        for (int i = 0; i < count && _left > 0; i++)
        {
            int inChunk = i % (ListBytes / SglDescriptor.Bytes);
            if (inChunk == 0)
            {
                int bytes = Math.Min((count - i) * SglDescriptor.Bytes, ListBytes);
                if (!lists.TryRead(at + (ulong)(i * SglDescriptor.Bytes), _list.AsSpan(0, bytes)))
                {
                    return NvmeStatus.Pending;
                }
            }

            SglDescriptor descriptor = MemoryMarshal.Cast<byte, SglDescriptor>(_list)[inChunk];
            switch (descriptor.Type)
            {
                case SglDescriptor.DataBlock:
                    Take(descriptor.Address, descriptor.Length);
                    break;
                case SglDescriptor.Segment or SglDescriptor.LastSegment when i < count - 1:
                    return NvmeStatus.InvalidSglCount;
                case SglDescriptor.Segment or SglDescriptor.LastSegment when isLast:
                    return NvmeStatus.InvalidSglSegment;
                case SglDescriptor.Segment or SglDescriptor.LastSegment:
                    segment = descriptor;
                    return NvmeStatus.Success;
                default:
                    return NvmeStatus.SglTypeInvalid;
            }
        }

        // A segment that is not the last one ends with the place of the next; without, its data ends here.
        isLast = true;
        return NvmeStatus.Success;
    }

    private void Take(ulong address, uint length)
    {
        length = Math.Min(length, _left);
        if (length == 0)
        {
            return;
        }

        _left -= length;
        if (_count > 0)
        {
            ref DmaRange last = ref _ranges[_count - 1];
            if (last.Address + last.Length == address && address != 0)
            {
                last = last with { Length = last.Length + length };
                return;
            }
        }

        _ranges[_count++] = new DmaRange(address, length);
    }
}

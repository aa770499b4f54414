// Windows of guest memory. When one is removed the function lets go of the old snapshot first; only then is the window
// unmapped and the command answered.
using System.Numerics;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

internal sealed partial class ServerSession
{
    /// <summary>Largest window: far beyond any guest, and short of what one mapping may have.</summary>
    private const ulong MaxWindowBytes = 8UL << 40;

    private async ValueTask DmaMapAsync(VfioUserMessage message)
    {
        DmaMapPayload asked = message.Read<DmaMapPayload>();
        Attachment? attachment = message.Attachments.Count > 0 ? message.Attachments[0] : null;
        RequireMappable(asked, attachment is not null);
        DmaWindow window = Open(asked, attachment);
        try
        {
            _dma.Add(window);
        }
        catch (ProtocolException)
        {
            window.Dispose();
            throw;
        }

        if (window.Region is not null)
        {
            await _function.ChangeMemoryAsync(keepsOldRegions: true).ConfigureAwait(false);
        }
    }

    private async ValueTask DmaUnmapAsync(VfioUserMessage message)
    {
        const string name = "DMA_UNMAP";
        DmaUnmapPayload asked = message.Read<DmaUnmapPayload>();
        if (asked.Argsz is < DmaUnmapPayload.Bytes or > VersionCapabilities.MaxTransferBytes)
        {
            throw new ProtocolException(name, "argsz", $"{asked.Argsz}: the reply has {DmaUnmapPayload.Bytes} bytes");
        }

        if (asked.Flags is not (DmaUnmapFlags.None or DmaUnmapFlags.All or DmaUnmapFlags.GetDirtyBitmap))
        {
            throw new ProtocolException(name, "flags", $"0x{(uint)asked.Flags:x}");
        }

        DirtyBitmapPayload? bitmap =
            asked.Flags == DmaUnmapFlags.GetDirtyBitmap ? RequireBitmap(asked, message.Payload.Span) : null;

        if (asked.Flags == DmaUnmapFlags.All && (asked.Address != 0 || asked.SizeBytes != 0))
        {
            throw new ProtocolException(name, "address", "address and size have to be 0 when all is unmapped");
        }

        DmaWindow[] windows = asked.Flags == DmaUnmapFlags.All
            ? _dma.RemoveAll()
            : [_dma.Remove(asked.Address, asked.SizeBytes) ?? throw new ProtocolException(
                name, "address", $"no window at 0x{asked.Address:x} of size 0x{asked.SizeBytes:x}", Errno.NoEntry)];
        if (Array.Exists(windows, window => window.Region is not null))
        {
            await _function.ChangeMemoryAsync(keepsOldRegions: false).ConfigureAwait(false);
        }

        foreach (DmaWindow window in windows)
        {
            window.Dispose();
        }

        _reply.Write(asked);
        if (bitmap is { } report)
        {
            // now that nobody writes there any more
            _reply.Write(report);
            _dma.Dirty.Report(
                asked.Address, asked.SizeBytes, report.PageBytes, _reply.Append((int)report.SizeBytes));
        }
    }

    /// <summary>What is asked for beside the unmap: a bitmap of the right size, while there is a log.</summary>
    private DirtyBitmapPayload RequireBitmap(DmaUnmapPayload asked, ReadOnlySpan<byte> payload)
    {
        const string name = "DMA_UNMAP";
        const int head = DmaUnmapPayload.Bytes + DirtyBitmapPayload.Bytes;
        if (payload.Length < head)
        {
            throw new ProtocolException(name, "size", $"{payload.Length} bytes, with a bitmap there are {head}");
        }

        DirtyBitmapPayload bitmap = MemoryMarshal.Read<DirtyBitmapPayload>(payload[DmaUnmapPayload.Bytes..]);
        if (!_dma.Dirty.IsOn)
        {
            throw new ProtocolException(name, "flags", "written pages are not being logged");
        }

        if (!BitOperations.IsPow2(bitmap.PageBytes) || bitmap.PageBytes > MaxReportPageBytes)
        {
            throw new ProtocolException(name, "page size", $"0x{bitmap.PageBytes:x}");
        }

        ulong pages = asked.SizeBytes == 0 ? 0 : ((asked.SizeBytes - 1) / bitmap.PageBytes) + 1;
        if (bitmap.SizeBytes > MaxBitmapBytes || bitmap.SizeBytes < (pages + 7) / 8
            || asked.Argsz < head + bitmap.SizeBytes)
        {
            throw new ProtocolException(
                name, "bitmap", $"{bitmap.SizeBytes} bytes for {pages} pages, argsz {asked.Argsz}");
        }

        return bitmap;
    }

    private static void RequireMappable(DmaMapPayload asked, bool hasDescriptor)
    {
        const string name = "DMA_MAP";
        const DmaMapFlags modes = DmaMapFlags.Mmap | DmaMapFlags.FileIo;
        if (asked.Argsz < DmaMapPayload.Bytes)
        {
            throw new ProtocolException(name, "argsz", $"{asked.Argsz}, the layout has {DmaMapPayload.Bytes} bytes");
        }

        if ((asked.Flags & ~DmaMapFlags.Known) != 0 || (asked.Flags & modes) == modes)
        {
            throw new ProtocolException(name, "flags", $"0x{(uint)asked.Flags:x}");
        }

        if ((asked.Flags & modes) != 0 && !hasDescriptor)
        {
            throw new ProtocolException(name, "descriptors", "none came for a window that is to be mapped or read");
        }

        if (!hasDescriptor && asked.Offset != 0)
        {
            throw new ProtocolException(name, "offset", $"0x{asked.Offset:x} without a descriptor");
        }

        if (asked.SizeBytes == 0 || asked.SizeBytes - 1 > ulong.MaxValue - asked.Address)
        {
            throw new ProtocolException(name, "size", $"0x{asked.SizeBytes:x} at 0x{asked.Address:x}");
        }

        if (asked.SizeBytes > MaxWindowBytes)
        {
            throw new ProtocolException(name, "size", $"0x{asked.SizeBytes:x} is beyond 8 TiB", Errno.NoSpace);
        }
    }

    private DmaWindow Open(DmaMapPayload asked, Attachment? attachment)
    {
        try
        {
            if (attachment is null)
            {
                return new DmaWindow(asked.Address, asked.SizeBytes, asked.Flags);
            }

            if ((asked.Flags & DmaMapFlags.FileIo) != 0)
            {
                BlockFile file = attachment.ToFile("guest memory");
                return new DmaWindow(asked.Address, asked.SizeBytes, asked.Flags) { File = (file, asked.Offset) };
            }

            return new DmaWindow(asked.Address, asked.SizeBytes, asked.Flags) { Region = Map(asked, attachment) };
        }
        catch (IOException error)
        {
            int errno = error is LinuxException linux ? linux.Errno : Errno.InvalidArgument;
            throw new ProtocolException("DMA_MAP", "descriptors", error.Message, errno);
        }
    }

    private MemoryRegion Map(DmaMapPayload asked, Attachment attachment)
    {
        SharedMemory memory = attachment.ToSharedMemory();
        bool isKept = false;
        try
        {
            MemoryMapping mapping = memory.Map(
                asked.Offset, asked.SizeBytes, writable: (asked.Flags & DmaMapFlags.Write) != 0);
            isKept = _function.KeepsMemoryObjects;
            return new MemoryRegion(asked.Address, 0, mapping)
            {
                Source = isKept ? new RegionSource(memory, asked.Offset) : null,
            };
        }
        finally
        {
            if (!isKept)
            {
                memory.Dispose();
            }
        }
    }
}

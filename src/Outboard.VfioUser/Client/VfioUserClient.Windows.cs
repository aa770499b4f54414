// Parts of BARs that the server lets clients map. What is known of a BAR is asked for once for each connection.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci.Bars;

namespace Outboard.VfioUser.Client;

public sealed partial class VfioUserClient
{
    private readonly Lock _barsLock = new();
    private readonly Dictionary<int, RegionInfo> _bars = [];
    private int _servers;

    /// <inheritdoc/>
    /// <remarks>The first time for each BAR the server is asked, and waited for.</remarks>
    public override SharedMemory OpenWindow(int bar, ulong offset, ulong sizeBytes)
    {
        RegionInfo info = InfoOf(bar);
        lock (_barsLock)
        {
            if (info.Memory is not FileSharedMemory file || !Covers(info.Areas, offset, sizeBytes))
            {
                throw new IOException(
                    $"BAR {bar}: the server lets nobody map 0x{sizeBytes:x} bytes at 0x{offset:x}");
            }

            return new BarWindow(Duplicate(file, bar), unchecked(info.Offset + offset), sizeBytes);
        }
    }

    /// <summary>Also the file of a server that was replaced meanwhile is refused.</summary>
    private static FileSharedMemory Duplicate(FileSharedMemory file, int bar)
    {
        try
        {
            return new FileSharedMemory(file.Descriptor.Duplicate());
        }
        catch (ObjectDisposedException error)
        {
            throw new IOException($"BAR {bar}: the server has changed", error);
        }
    }

    private RegionInfo InfoOf(int bar)
    {
        while (true)
        {
            int server;
            lock (_barsLock)
            {
                if (_bars.TryGetValue(bar, out RegionInfo? known))
                {
                    return known;
                }

                server = _servers;
            }

            // not under the lock: the question may find out that the server was replaced
            RegionInfo info = GetRegionInfoAsync(bar).GetAwaiter().GetResult();
            lock (_barsLock)
            {
                if (server == _servers && _bars.TryAdd(bar, info))
                {
                    return info;
                }
            }

            info.Dispose();
        }
    }

    /// <summary>Whether areas, of which several may lie side by side, cover a range.</summary>
    private static bool Covers(IEnumerable<BarArea> areas, ulong offset, ulong sizeBytes)
    {
        foreach (BarArea area in areas.OrderBy(area => area.Offset))
        {
            if (offset >= area.Offset && offset - area.Offset < area.SizeBytes)
            {
                ulong here = Math.Min(sizeBytes, area.SizeBytes - (offset - area.Offset));
                offset += here;
                sizeBytes -= here;
            }
        }

        return sizeBytes == 0;
    }

    /// <summary>The server is another one, or none: what was learnt of its BARs holds no more.</summary>
    private void ForgetBars()
    {
        lock (_barsLock)
        {
            _servers++;
            ForgetShadows();
            foreach (RegionInfo info in _bars.Values)
            {
                info.Dispose();
            }

            _bars.Clear();
        }
    }

    private sealed class BarWindow(FileSharedMemory file, ulong start, ulong sizeBytes) : SharedMemory
    {
        public override ulong SizeBytes => sizeBytes;

        public override FileIdentity Identity => file.Identity;

        public override MemoryMapping Map(ulong offset, ulong length, bool writable = true) =>
            offset <= sizeBytes && length <= sizeBytes - offset
                ? file.Map(start + offset, length, writable)
                : throw new IOException($"0x{length:x} bytes at 0x{offset:x} leave a window of 0x{sizeBytes:x}");

        public override void Dispose() => file.Dispose();
    }
}

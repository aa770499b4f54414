// What lies in the device's shared memory regions. Mapping asks the transport, which may take its time, so changes are
// made one at a time by whoever serves the front-end; and never on a queue's thread.
//
// What a session leaves behind is kept (the driver may still be polling it) and released when the driver arms for the
// next one. A reset drops all mappings on the driver's side, on most transports without a word: everything of before
// belongs to an earlier epoch then. It is unmapped once more before the next session, since a transport may have kept
// it; a refusal means that it was gone. So is a mapping that was under way during the reset.
//
// Only the device's session is given a place. One that was ended may still be busy with its last message: what it laid
// out would belong to nobody, and lie where the next session's memory has to be.
//
// A region that is a file shows all of it, always: what lies there already needs no mapping, and something else cannot
// be had. Only the places of records are kept account of, since this device chooses those itself.
using Microsoft.Extensions.Logging;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>Something that lies in a region. Each is its own, also where another one lay before.</summary>
internal sealed class WindowPart(SharedRegionPart part, ulong offset, int epoch)
{
    internal SharedRegionPart Part => part;

    /// <summary>Where its first byte is, which may be within a page.</summary>
    internal ulong Offset => offset;

    internal int Epoch => epoch;

    /// <summary>Where it lies in the file that the region is, if it is one: nothing was mapped for it then.</summary>
    internal ulong? FileOffset { get; init; }
}

/// <summary>The device's regions. From any thread.</summary>
#pragma warning disable CA1001 // A semaphore that nobody takes a wait handle of holds nothing.
internal sealed class RegionWindows
{
    private readonly VirtioVhostUserDevice _device;
    private readonly SemaphoreSlim _turn = new(1);
    private readonly Lock _lock = new();
    private readonly Dictionary<byte, WindowPlan> _plans;
    private readonly List<WindowPart> _mapped = [];
    private readonly List<WindowPart> _stale = [];
    private int _epoch;

    internal RegionWindows(VirtioVhostUserDevice device)
    {
        _device = device;
        _plans = device.SharedRegions.ToDictionary(region => region.Id, region => new WindowPlan(region.SizeBytes));
    }

    /// <summary>Parts that are mapped, for tests.</summary>
    internal int Count
    {
        get
        {
            lock (_lock)
            {
                return _mapped.Count;
            }
        }
    }

    /// <summary>Whether nothing lies there, nor may have been left there by a reset.</summary>
    internal bool AreEmpty
    {
        get
        {
            lock (_lock)
            {
                return _mapped.Count == 0 && _stale.Count == 0;
            }
        }
    }

    /// <summary>Whether there is such a region.</summary>
    internal bool Has(byte region) => _plans.ContainsKey(region);

    /// <summary>The file that a region is; null when parts are mapped into it.</summary>
    internal FileSharedMemory? FileOf(byte region) => Find(region)?.Memory;

    /// <summary>Takes room for a record in a region that is a file.</summary>
    /// <exception cref="IOException">There is none, or the session was ended.</exception>
    internal WindowPart TakeRoom(FrontendSession session, byte region, ulong bytes) =>
        Place(session, region, bytes, 0, null);

    /// <summary>Maps a piece of memory.</summary>
    /// <param name="session">Whose it is.</param>
    /// <param name="region">Where.</param>
    /// <param name="memory">What; stays the caller's.</param>
    /// <param name="offset">First byte of it.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="place">The offset in the region at which the first byte is to appear; null for any.</param>
    /// <returns>The part, with the offset of the first byte.</returns>
    /// <exception cref="IOException">
    /// It does not fit, or the driver's side refuses, or the session was ended.
    /// </exception>
    internal async Task<WindowPart> MapAsync(
        FrontendSession session, byte region, SharedMemory memory, ulong offset, ulong length, ulong? place = null)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        ulong slack = offset % page;
        ulong room = Find(region)?.SizeBytes ?? 0;
        if (length == 0 || length > room)
        {
            throw new IOException(
                $"0x{length:x} bytes do not fit into region {region} of 0x{room:x}: make it larger");
        }

        ulong size = memory.SizeBytes;
        if (size != 0 && (offset > size || length > size - offset))
        {
            throw new IOException($"0x{length:x} bytes at 0x{offset:x} of a file of 0x{size:x}");
        }

        if (FileOf(region) is { } file)
        {
            return FindIn(session, file, region, memory, offset, length);
        }

        if (place is not null && (slack != 0 || place % page != 0))
        {
            throw new IOException("memory that begins or ends within a page needs a driver with EXPLICIT_OFFSETS");
        }

        ulong bytes = (slack + length + page - 1) / page * page;
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            WindowPart part = Place(session, region, bytes, slack, place);
            try
            {
                await _device.MapPartAsync(part.Part, memory, offset - slack).ConfigureAwait(false);
            }
            catch (Exception error) when (error is IOException or ArgumentException)
            {
                Drop(part);
                throw new IOException($"0x{length:x} bytes for region {region}: {error.Message}", error);
            }

            if (part.Epoch == Volatile.Read(ref _epoch))
            {
                return part;
            }

            await _device.ForceUnmapAsync(part.Part).ConfigureAwait(false);
            throw new IOException("the driver was reset meanwhile");
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Unmaps parts. What is of an earlier epoch is gone already.</summary>
    internal async Task UnmapAsync(IEnumerable<WindowPart> parts)
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            foreach (WindowPart part in parts)
            {
                if (IsMapped(part))
                {
                    if (FileOf(part.Part.Region) is null)
                    {
                        await _device.UnmapPartAsync(part.Part).ConfigureAwait(false);
                    }

                    Drop(part);
                }
            }
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Unmaps everything, after an earlier call has done so.</summary>
    internal async Task ReleaseAsync(Task earlier)
    {
        await Task.Yield();
        await earlier.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        WindowPart[] stale;
        WindowPart[] mapped;
        lock (_lock)
        {
            stale = [.. _stale];
            mapped = [.. _mapped];
        }

        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            foreach (WindowPart part in stale)
            {
                await _device.ForceUnmapAsync(part.Part).ConfigureAwait(false);
                lock (_lock)
                {
                    _stale.Remove(part);
                }
            }
        }
        finally
        {
            _turn.Release();
        }

        await UnmapAsync(mapped).ConfigureAwait(false);
    }

    /// <summary>The driver's side has dropped all mappings, or is about to.</summary>
    internal void Forget()
    {
        lock (_lock)
        {
            _epoch++;
            _stale.AddRange(_mapped);
            _mapped.Clear();
            foreach (WindowPlan plan in _plans.Values)
            {
                plan.Clear();
            }

            _device.ForgetSharedMappings();
        }
    }

    private SharedRegion? Find(byte region) =>
        _device.SharedRegions.Where(known => known.Id == region).Select(known => (SharedRegion?)known).FirstOrDefault();

    /// <summary>Where memory lies in a region that is a file. A record's place is taken, unless it is taken already.
    /// </summary>
    private WindowPart FindIn(
        FrontendSession session, FileSharedMemory file, byte region, SharedMemory memory, ulong offset, ulong length)
    {
        SharedRegion found = Find(region)!.Value;
        if (memory.Identity != file.Identity || offset < found.MemoryOffset
            || offset - found.MemoryOffset > found.SizeBytes - length)
        {
            throw new IOException(
                $"0x{length:x} bytes of another file, or beyond the window: the front-end's machine must have its "
                + $"memory in the device's file, in the first 0x{found.SizeBytes:x} bytes (memory-backend-file)");
        }

        ulong page = (ulong)Environment.SystemPageSize;
        ulong start = offset - found.MemoryOffset;
        ulong first = start / page * page;
        ulong bytes = (start + length + page - 1 - first) / page * page;
        WindowPart part = new(new SharedRegionPart(region, first, bytes), start, Volatile.Read(ref _epoch))
        {
            FileOffset = offset,
        };
        if (region == VirtioVhostUserSpec.InflightWindow)
        {
            ForSession(
                session,
                () =>
                {
                    if (_plans[region].TryPlaceAt(first, bytes))
                    {
                        _mapped.Add(part);
                    }
                });
        }

        return part;
    }

    private bool IsMapped(WindowPart part)
    {
        lock (_lock)
        {
            return _mapped.Contains(part);
        }
    }

    private WindowPart Place(FrontendSession session, byte region, ulong bytes, ulong slack, ulong? place)
    {
        WindowPart? part = null;
        ForSession(
            session,
            () =>
            {
                WindowPlan plan = _plans[region];
                ulong start = place is { } wanted
                    ? plan.TryPlaceAt(wanted, bytes) ? wanted : throw NoRoom(region, bytes)
                    : plan.TryPlace(bytes) ?? throw NoRoom(region, bytes);
                part = new(new SharedRegionPart(region, start, bytes), start + slack, _epoch)
                {
                    FileOffset =
                        Find(region) is { Memory: not null } file ? start + slack + file.MemoryOffset : null,
                };
                _mapped.Add(part);
            });
        return part!;
    }

    /// <summary>Changes the account for a session, unless that was ended: its places are looked through then, and
    /// nothing may come after.</summary>
    /// <exception cref="IOException">It was ended.</exception>
    private void ForSession(FrontendSession session, Action change)
    {
        bool isDone = _device.TryWithSession(
            session,
            () =>
            {
                lock (_lock)
                {
                    change();
                }
            });
        if (!isDone)
        {
            throw new IOException("the session was ended meanwhile");
        }
    }

    private IOException NoRoom(byte region, ulong bytes) => new(
        $"0x{bytes:x} bytes find no room in region {region} of 0x{_plans[region].SizeBytes:x}: make it larger");

    private void Drop(WindowPart part)
    {
        lock (_lock)
        {
            if (_mapped.Remove(part))
            {
                _plans[part.Part.Region].Free(part.Part.Offset);
            }
        }
    }
}

public sealed partial class VirtioVhostUserDevice
{
    internal Task MapPartAsync(SharedRegionPart part, SharedMemory memory, ulong offset) =>
        MapSharedAsync(part, memory, offset, writable: true);

    /// <summary>A refusal is told in the log: the driver's side may have dropped it before.</summary>
    internal async Task UnmapPartAsync(SharedRegionPart part)
    {
        try
        {
            await UnmapSharedAsync(part).ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or ArgumentException)
        {
            _log.LogDebug("unmapping 0x{Offset:x} of {Region}: {Reason}", part.Offset, part.Region, error.Message);
        }
    }

    /// <summary>Has the driver's side unmap what it may have, whatever this side knows.</summary>
    internal async Task ForceUnmapAsync(SharedRegionPart part)
    {
        try
        {
            if (SharedRegionHost is { } host)
            {
                await host.UnmapAsync(part).ConfigureAwait(false);
            }
        }
        catch (IOException error)
        {
            _log.LogDebug("unmapping 0x{Offset:x} of {Region}: {Reason}", part.Offset, part.Region, error.Message);
        }
    }
}

// Asynchronous events: what happened that the driver has not been told. NVM Express Base "Asynchronous Event Request
// command". After an event the others of its type wait until the driver has read the log page that belongs to it.
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

/// <summary>Events and the list of changed namespaces. All members may be called from any thread.</summary>
internal sealed class EventLog(NvmeController controller)
{
    /// <summary>Bit of the event configuration: tell of changed namespaces.</summary>
    internal const uint NamespaceNotices = 1 << 8;

    private static readonly NvmeEvent[] s_kinds =
        [NvmeEvent.InvalidDoorbellRegister, NvmeEvent.InvalidDoorbellValue, NvmeEvent.NamespaceChanged];

    private readonly Lock _lock = new();
    private readonly SortedSet<uint> _changed = [];
    private uint _pending;
    private uint _masked;
    private uint _configuration;

    /// <summary>Which notices the driver wants.</summary>
    internal uint Configuration
    {
        get => Volatile.Read(ref _configuration);
        set => Volatile.Write(ref _configuration, value);
    }

    /// <summary>As after a controller reset.</summary>
    internal void Reset()
    {
        lock (_lock)
        {
            _pending = _masked = 0;
            _changed.Clear();
            Configuration = 0;
        }
    }

    internal void Raise(NvmeEvent kind)
    {
        lock (_lock)
        {
            uint bit = 1u << Array.IndexOf(s_kinds, kind);
            if ((_pending & bit) != 0)
            {
                return;
            }

            _pending |= bit;
        }

        if (kind != NvmeEvent.NamespaceChanged)
        {
            controller.Errors.Add(0, ushort.MaxValue, NvmeStatus.Success);
        }

        controller.WakeAdmin();
    }

    internal void OnNamespaceChanged(uint number)
    {
        lock (_lock)
        {
            _changed.Add(number);
        }

        if ((Configuration & NamespaceNotices) != 0)
        {
            Raise(NvmeEvent.NamespaceChanged);
        }
    }

    /// <summary>Takes an event that may be told now, and holds back the others of its type.</summary>
    internal bool TryTake(out NvmeEvent kind)
    {
        lock (_lock)
        {
            for (int i = 0; i < s_kinds.Length; i++)
            {
                kind = s_kinds[i];
                if ((_pending & (1u << i)) != 0 && (_masked & TypeBit(kind)) == 0)
                {
                    _pending &= ~(1u << i);
                    _masked |= TypeBit(kind);
                    return true;
                }
            }
        }

        kind = default;
        return false;
    }

    /// <summary>The driver read a log page, and may be told the next event of its kind.</summary>
    internal void OnLogRead(NvmeLogPage page)
    {
        lock (_lock)
        {
            foreach (NvmeEvent kind in s_kinds)
            {
                if ((NvmeLogPage)((uint)kind >> 16) == page)
                {
                    _masked &= ~TypeBit(kind);
                }
            }
        }

        controller.WakeAdmin();
    }

    /// <summary>The namespaces that changed since the last call.</summary>
    internal uint[] TakeChanged()
    {
        lock (_lock)
        {
            uint[] changed = [.. _changed];
            _changed.Clear();
            return changed;
        }
    }

    /// <summary>For another process: pending, held back, configuration, changed namespaces.</summary>
    internal uint[] Save()
    {
        lock (_lock)
        {
            return [_pending, _masked, Configuration, .. _changed];
        }
    }

    /// <summary>Whether <see cref="Load"/> can take this.</summary>
    internal static bool IsValid(ReadOnlySpan<uint> saved, int namespaces)
    {
        bool isValid = saved.Length is >= 3 and <= 3 + NvmeController.MaxNamespaces && saved[0] >> s_kinds.Length == 0
            && saved[1] <= byte.MaxValue;
        foreach (uint number in isValid ? saved[3..] : [])
        {
            isValid &= number - 1 < (uint)namespaces;
        }

        return isValid;
    }

    /// <summary>Takes over what another process had.</summary>
    internal void Load(ReadOnlySpan<uint> saved)
    {
        lock (_lock)
        {
            _pending = saved[0];
            _masked = saved[1];
            Configuration = saved[2];
            _changed.Clear();
            foreach (uint number in saved[3..])
            {
                _changed.Add(number);
            }
        }
    }

    private static uint TypeBit(NvmeEvent kind) => 1u << (int)((uint)kind & 7);
}

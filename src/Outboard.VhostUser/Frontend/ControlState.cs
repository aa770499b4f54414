// What a front-end has told its back-end and a successor must be told again: noted by VhostUserFrontend whenever a
// request succeeded, told by ReconnectingFrontend. Its file head has the whole list.
using Outboard.Linux.Events;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>What one back-end was told, beside features, memory and the in-flight region.</summary>
/// <remarks>Written by the requests' methods, of which one runs at a time; read when the connection is over.</remarks>
internal sealed class ControlState
{
    private readonly Lock _lock = new();
    private readonly SortedDictionary<uint, byte> _config = [];
    private readonly Dictionary<int, RingState> _rings = [];
    private readonly Dictionary<ulong, CryptoSessionParameters> _sessions = [];

    /// <summary>SET_STATUS; null when it was never told.</summary>
    internal VirtioStatus? Status { get; private set; }

    /// <summary>NET_SET_MTU; 0 when it was never told.</summary>
    internal int Mtu { get; set; }

    /// <summary>SET_LOG_BASE.</summary>
    internal FrontendLog? Log { get; set; }

    /// <summary>SET_LOG_FD.</summary>
    internal EventFd? LogMarked { get; set; }

    /// <summary>SUSPEND, until RESUME.</summary>
    internal bool IsSuspended { get; set; }

    /// <summary>POSTCOPY_LISTEN, until POSTCOPY_END.</summary>
    internal bool IsInPostcopy { get; set; }

    /// <summary>Open crypto sessions, by number.</summary>
    internal IReadOnlyList<(ulong Number, CryptoSessionParameters Parameters)> Sessions
    {
        get
        {
            lock (_lock)
            {
                return [.. _sessions.OrderBy(session => session.Key).Select(session => (session.Key, session.Value))];
            }
        }
    }

    /// <summary>The driver's writes to the configuration space: runs of bytes, the last value of each.</summary>
    internal IReadOnlyList<(uint Offset, byte[] Bytes)> ConfigWrites
    {
        get
        {
            lock (_lock)
            {
                List<(uint Offset, List<byte> Bytes)> runs = [];
                foreach ((uint offset, byte value) in _config)
                {
                    if (runs.Count > 0 && runs[^1].Offset + runs[^1].Bytes.Count == offset)
                    {
                        runs[^1].Bytes.Add(value);
                    }
                    else
                    {
                        runs.Add((offset, [value]));
                    }
                }

                return [.. runs.Select(run => (run.Offset, run.Bytes.ToArray()))];
            }
        }
    }

    /// <summary>A ring's state; a copy.</summary>
    internal RingState Ring(int index)
    {
        lock (_lock)
        {
            return _rings.GetValueOrDefault(index);
        }
    }

    internal void NoteRing(int index, Func<RingState, RingState> change)
    {
        lock (_lock)
        {
            _rings[index] = change(_rings.GetValueOrDefault(index));
        }
    }

    internal void NoteConfig(uint offset, ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            for (int i = 0; i < bytes.Length; i++)
            {
                _config[offset + (uint)i] = bytes[i];
            }
        }
    }

    internal void NoteSession(ulong number, CryptoSessionParameters? parameters)
    {
        lock (_lock)
        {
            if (parameters is null)
            {
                _sessions.Remove(number);
            }
            else
            {
                _sessions[number] = parameters;
            }
        }
    }

    /// <summary>SET_STATUS; 0 is a reset.</summary>
    internal void NoteStatus(VirtioStatus status)
    {
        Status = status;
        if (status == VirtioStatus.None)
        {
            NoteReset();
        }
    }

    /// <summary>The device is as at the beginning. What stays is what its front-end set, not its driver.</summary>
    internal void NoteReset()
    {
        lock (_lock)
        {
            Status = Status is null ? null : VirtioStatus.None;
            Mtu = 0;
            IsSuspended = false;
            _config.Clear();
            _sessions.Clear();
            foreach (int index in _rings.Keys.ToArray())
            {
                _rings[index] = _rings[index] with { IsStarted = false };
            }
        }
    }

    /// <summary>What a ring was told, its place in memory aside.</summary>
    /// <param name="IsStarted">Whether it runs (or would, when it is enabled).</param>
    /// <param name="IsDisabled">Whether it was started and then disabled.</param>
    /// <param name="Errors">SET_VRING_ERR.</param>
    /// <param name="IsBigEndian">SET_VRING_ENDIAN; null when it was never told.</param>
    internal readonly record struct RingState(
        bool IsStarted, bool IsDisabled, EventFd? Errors, bool? IsBigEndian);
}

// What one virtqueue has done. Written by its thread, read by any.
namespace Outboard.Devices.Net;

/// <summary>Counts of packets.</summary>
public sealed class NetCounters
{
    private long _packets;
    private long _bytes;
    private long _refused;
    private long _malformed;
    private long _oversize;

    /// <summary>Packets that moved.</summary>
    public long Packets => Volatile.Read(ref _packets);

    /// <summary>Bytes of them, without headers.</summary>
    public long Bytes => Volatile.Read(ref _bytes);

    /// <summary>Packets that the back-end dropped, or could not give.</summary>
    public long Refused => Volatile.Read(ref _refused);

    /// <summary>Chains of the driver that held no packet, or no room for one.</summary>
    public long Malformed => Volatile.Read(ref _malformed);

    /// <summary>Packets that were too long for the driver's buffers, or for any network.</summary>
    public long Oversize => Volatile.Read(ref _oversize);

    internal void CountPacket(int bytes)
    {
        _packets++;
        _bytes += bytes;
    }

    internal void CountRefused() => _refused++;

    internal void CountMalformed() => _malformed++;

    internal void CountOversize() => _oversize++;
}

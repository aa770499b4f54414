// What an operator can choose about a block device.
namespace Outboard.Devices.Block;

/// <summary>How a block device presents itself.</summary>
public sealed record BlockDeviceOptions
{
    /// <summary>Refuse writes, and say so to the driver.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>The identity that GET_ID returns: up to 20 ASCII characters.</summary>
    public string Serial { get; init; } = string.Empty;

    /// <summary>Virtqueues.</summary>
    public int QueueCount { get; init; } = 1;

    /// <summary>Largest size of each virtqueue.</summary>
    public int QueueSize { get; init; } = 1024;

    /// <summary>Logical block size in bytes: a power of two from 512 to 4096; at least the disk's own.</summary>
    public int BlockSize { get; init; } = 512;

    /// <summary>Whether writes may stay in a volatile cache until a flush, at first; drivers may change it.</summary>
    public bool WriteCache { get; init; } = true;
}

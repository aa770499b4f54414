// How the device is made.
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.Memory;
using Outboard.Virtio.Spec;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>How a virtio-vhost-user device is made.</summary>
public sealed record VirtioVhostUserOptions
{
    /// <summary>
    /// The device type that is used when nothing else is asked for. The number of the drafts, 43, belongs to cameras
    /// now, and QEMU refuses types that it has no name for; 22 has one, and no driver that would take the device.
    /// </summary>
    public const VirtioDeviceId DefaultType = (VirtioDeviceId)22;

    /// <summary>The smallest total of the regions: a page each for log and record.</summary>
    public const ulong MinWindowBytes = 1 << 20;

    /// <summary>One of so many parts of the regions is the window of the log, another that of the record.</summary>
    internal const int SmallWindows = 16;

    /// <summary>Where the control plane tells what happens.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;

    /// <summary>The device type.</summary>
    public VirtioDeviceId Type { get; init; } = DefaultType;

    /// <summary>Most rings of a front-end.</summary>
    public int Rings { get; init; } = 8;

    /// <summary>
    /// Bytes of all shared memory regions: a power of two, as QEMU asks. A sixteenth each is for the log and for the
    /// record of requests in flight; the front-end's guest must fit into the rest. Guests see it as a BAR, so it must
    /// fit into their address space.
    /// </summary>
    public ulong WindowBytes { get; init; } = 8UL << 30;

    /// <summary>
    /// The file in which the memory of all front-ends lies, at least of <see cref="WindowBytes"/>; null when it may be
    /// any, which a transport has to map at run time. With a file the regions are the file, for good: the first
    /// fifteen sixteenths are for memory, the rest for the record of requests in flight. There is no window for the
    /// log, so front-ends cannot migrate. Stays the caller's, and outlives the device.
    /// </summary>
    public FileSharedMemory? MemoryFile { get; init; }

    /// <summary>Bytes at most of a record of requests in flight.</summary>
    public ulong MaxInflightBytes { get; init; } = 64 << 20;

    /// <summary>Sixteen bytes by which a driver tells devices from each other; zeroes for none.</summary>
    public ReadOnlyMemory<byte> Id { get; init; } = new byte[VirtioVhostUserSpec.IdBytes];

    /// <summary>
    /// Whether sessions are numbered for drivers that want that. The configuration space is larger then, which the
    /// driver's machine may have to be told.
    /// </summary>
    public bool NumbersSessions { get; init; }

    /// <summary>
    /// How long the memory of a front-end stays visible after it went away, while the driver has not taken note. Null
    /// waits for the driver: it may be polling there.
    /// </summary>
    public TimeSpan? MemoryGrace { get; init; }

    /// <summary>What the grace is measured by.</summary>
    internal TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>An identification that stays the same for a name: the beginning of its hash.</summary>
    public static byte[] IdOf(string name) =>
        SHA256.HashData(Encoding.UTF8.GetBytes(name))[..VirtioVhostUserSpec.IdBytes];
}

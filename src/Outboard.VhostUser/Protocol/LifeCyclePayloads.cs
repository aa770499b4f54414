// Layouts of the private requests behind LIFE_CYCLE, with which a whole VIRTIO device stands behind one socket. Host
// byte order, as all of the protocol; the configuration space's bytes are little-endian.
//   identity     0 device id u32, 4 vendor id u32, 8 queue count u32, 12 config size u32, 16 epoch u64         24 bytes
//   iova range   0 first u64, 8 last u64                                                                       16 bytes
//   queue state  0 index u32, 4 flags u32 (1 started, 2 enabled, 4 broken), 8 base u32, 12 size u32            16 bytes
//   config       0 offset u32, 4 size u32, 8 generation u32, 12 bytes                                      12 + n bytes
using System.Runtime.InteropServices;

namespace Outboard.VhostUser.Protocol;

/// <summary>
/// What a device is: 0 type u32, 4 vendor u32 (0: none), 8 number of queues u32, 12 bytes of configuration space u32,
/// 16 epoch u64, a number that a process draws for its device: another one means that the device's state is gone.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IdentityPayload(
    uint DeviceId, uint VendorId, uint QueueCount, uint ConfigBytes, ulong Epoch)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 24;
}

/// <summary>Bus addresses that rings and buffers may have: 0 first u64, 8 last u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IovaRangePayload(ulong First, ulong Last)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 16;
}

/// <summary>Where a queue stands: 0 index u32, 4 flags u32, 8 base u32, 12 size u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct QueueStatePayload(uint Index, QueueStateFlags Flags, uint Base, uint Size)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 16;
}

/// <summary>What is true of a queue.</summary>
[Flags]
public enum QueueStateFlags : uint
{
    /// <summary>It is stopped.</summary>
    None = 0,

    /// <summary>It was handed to the device, see SET_VRING_KICK.</summary>
    Started = 1,

    /// <summary>It is enabled, see SET_VRING_ENABLE.</summary>
    Enabled = 2,

    /// <summary>The driver broke it: it is not served until a reset.</summary>
    Broken = 4,
}

/// <summary>
/// A part of the configuration space: 0 offset u32, 4 size u32, 8 generation u32 (of the reply; 0 in requests),
/// 12 bytes.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ConfigPartPayload(uint Offset, uint SizeBytes, uint Generation)
{
    /// <summary>Bytes before those of the space.</summary>
    public const int Bytes = 12;

    /// <summary>Most bytes of the space in one message.</summary>
    public const int MaxPartBytes = MessageHeader.MaxPayloadBytes - Bytes;
}

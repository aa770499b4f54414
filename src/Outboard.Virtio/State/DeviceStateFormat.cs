// A device's state as a stream of bytes: what a device carries over to its new host beside rings and configuration.
//
//   0 magic "OUTBOARD", 8 version u16, 10 device type u16, 12 bytes in all u32
//   16 records, each: 0 name, 4 ASCII characters; 4 flags u16 (bit 0: may be ignored), 6 zero u16, 8 length u32; bytes
//   end - 32 SHA-256 of everything before
//
// All numbers little-endian. A reader refuses what is longer or shorter than it says, altered, of another device or of
// another version, a record twice, and a record that it does not know, unless that may be ignored. Records may be
// added within a version; a record whose meaning changes gets another name. Nothing of a stream is used before all of
// it is checked.
namespace Outboard.Virtio.State;

/// <summary>Constants of the stream.</summary>
public static class DeviceStateFormat
{
    /// <summary>The version that is written.</summary>
    public const ushort Version = 1;

    /// <summary>
    /// Longest stream that is read: no device here has more than some kilobytes, and a peer decides what comes.
    /// </summary>
    public const int MaxBytes = 1 << 20;

    internal const int HeaderBytes = 16;
    internal const int RecordHeaderBytes = 12;
    internal const int ChecksumBytes = 32;
    internal const ushort Ignorable = 1;

    internal static ReadOnlySpan<byte> Magic => "OUTBOARD"u8;
}

/// <summary>A state that cannot be loaded, or cannot be saved.</summary>
public sealed class DeviceStateException(string message) : Exception(message);

// What a state file holds, and where: a header, then a lane for each queue. Numbers are little-endian, as all machines
// are that this runs on; the file does not leave its machine.
//
//   header    0 magic u64 | 8 version u32 | 12 device type u32 | 16 file size u64 | 24 lanes u32 | 28 entries u32
//             32 state words u32 | 36 redo words u32 | 40 reply bytes u32 | 48 name, 32 bytes ASCII
//             80 checksum (CRC-32C) of bytes 8 to 79, u32 | 88 owners so far u64 | to 128
//   lane      0 applied u64: number of the last entry whose redo words stand in the state | 64 state words | entries
//   entry     0 commit word u64 { state u8: 0 free, 1 committed | redo count u8 | ring position u16 | number u32 }
//             8 reply length u32 | 12 checksum (CRC-32C) of commit word, reply length, redo and reply, u32
//             16 redo { state word u64, value u64 } ... | reply
// Lanes and entries begin at multiples of 64 bytes: two queues' threads share no cache line.
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Journal;

/// <summary>What a device keeps in its <see cref="DeviceJournal"/>.</summary>
public sealed record JournalLayout
{
    /// <summary>Longest <see cref="Name"/>.</summary>
    public const int MaxNameBytes = 32;

    /// <summary>Most redo words of an entry: their count has eight bits.</summary>
    public const int MaxRedoWords = 255;

    /// <summary>"OUTBDJRN".</summary>
    internal const ulong Magic = 0x4E524A44_4254554FUL;
    internal const uint Version = 1;
    internal const int HeaderBytes = 128;
    internal const int MagicOffset = 0;
    internal const int VersionOffset = 8;
    internal const int DeviceOffset = 12;
    internal const int FileBytesOffset = 16;
    internal const int LanesOffset = 24;
    internal const int EntriesOffset = 28;
    internal const int StateWordsOffset = 32;
    internal const int RedoWordsOffset = 36;
    internal const int ReplyBytesOffset = 40;
    internal const int NameOffset = 48;
    internal const int ChecksumOffset = 80;
    internal const int OwnersOffset = 88;
    internal const int AppliedOffset = 0;
    internal const int StateOffset = 64;
    internal const int ReplyLengthOffset = 8;
    internal const int EntryChecksumOffset = 12;
    internal const int RedoOffset = 16;
    internal const int RedoBytes = 16;

    private const int LineBytes = 64;

    /// <summary>The device that the state belongs to.</summary>
    public required VirtioDeviceId Device { get; init; }

    /// <summary>
    /// What the state words mean, with a number that changes when that does: "counter 1". ASCII, up to
    /// <see cref="MaxNameBytes"/>.
    /// </summary>
    public required string Name { get; init; }

    /// <summary>Lanes: one for each queue whose requests change state.</summary>
    public int LaneCount { get; init; } = 1;

    /// <summary>Entries of a lane: the largest size that a queue may have.</summary>
    public required int EntryCount { get; init; }

    /// <summary>Numbers that a lane keeps; all are 0 in a new file.</summary>
    public int StateWords { get; init; } = 1;

    /// <summary>Most of them that one request changes.</summary>
    public int RedoWords { get; init; } = 1;

    /// <summary>Longest reply of a request, in bytes.</summary>
    public int ReplyBytes { get; init; }

    internal uint EntriesStart => (uint)Lines(StateOffset + (StateWords * sizeof(ulong)));

    internal uint ReplyStart => (uint)(RedoOffset + (RedoWords * RedoBytes));

    internal uint EntryBytes => (uint)Lines((int)ReplyStart + Words(ReplyBytes));

    internal uint LaneBytes => EntriesStart + ((uint)EntryCount * EntryBytes);

    internal uint FileBytes => checked(HeaderBytes + ((uint)LaneCount * LaneBytes));

    /// <summary>Rounded up to whole words.</summary>
    internal static int Words(int bytes) => (bytes + sizeof(ulong) - 1) / sizeof(ulong) * sizeof(ulong);

    internal uint Lane(int index) => HeaderBytes + ((uint)index * LaneBytes);

    internal void Check()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(LaneCount, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(EntryCount, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(EntryCount, SplitRing.MaxSize);
        ArgumentOutOfRangeException.ThrowIfLessThan(StateWords, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(RedoWords, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(RedoWords, MaxRedoWords);
        ArgumentOutOfRangeException.ThrowIfNegative(ReplyBytes);
        if (!System.Text.Ascii.IsValid(Name) || Name.Length is 0 or > MaxNameBytes)
        {
            throw new ArgumentException($"'{Name}' is no name of 1 to {MaxNameBytes} ASCII characters");
        }
    }

    private static int Lines(int bytes) => (bytes + LineBytes - 1) / LineBytes * LineBytes;
}

/// <summary>A state file that cannot be used; the message is one line that says why.</summary>
public sealed class JournalException(string message) : IOException(message);

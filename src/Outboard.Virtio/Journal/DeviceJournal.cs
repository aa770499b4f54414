// The state of a device that must survive its process, and with which each request takes effect exactly once: a small
// file on tmpfs, or a memfd that a supervisor keeps and hands over. The process may be killed (kill -9) at any
// instruction; the next one opens the file, and goes on. A failure of the host itself is not covered.
//
// Why it is needed: the in-flight region says which requests a killed process held, and the next one submits them
// again. That is right for a disk, where writing twice is writing once. It is wrong for "add 1", for compare-and-swap
// and for output that is appended: some of what was held had taken effect already. So a request leaves an entry here,
// with what it changed and with its reply, and becomes effective by one store: the commit word.
//
//   Take      T   the queue takes the chain, and records it in the in-flight region if there is one
//   Handle    (the device reads state and request; what it changes and answers is collected in this process)
//   Commit    A1  the entry's redo words, reply, length, checksum           release, each: after A6 of its last use
//             A2  the entry's commit word                                   release: A1 before A2
//   Apply     A3  the state words                                           release, each: A2 before A3
//             A4  applied = the entry's number                              release
//   Answer    A5  reply to the driver's buffers; used element; used index   as the virtqueue says; A2 before it
//   Retire    A6  commit word = 0, before the queue takes another chain     release
//
// A crash before A2: the request had no effect. It is still held by the ring, is taken again and handled.
// A crash between A2 and A4: the successor applies the entry's redo words (absolute values: again is the same). There
//   is at most one such entry in a lane, the one with the number applied + 1.
// A crash between A2 and the publication of A5: the chain is still held by the ring. It is taken again, found
//   committed, and answered by the reply of its entry. It is not handled.
// A crash after the publication, before A6: the ring does not hold the chain any more, so its entry is retired before
//   the first chain is taken (Settle).
// A crash in the successor's recovery: each of its steps may be repeated.
//
// Requests that are kept open (JournaledQueue.Defer) are between Take and Handle for as long as they are: nothing of
// them is here. The steps from Handle on are one after another on the queue's thread, whatever the order in which the
// requests were taken, so the numbers of the entries are the order in which requests took effect, and there is still at
// most one entry that is committed and not applied. With several of them open the region is needed: see below.
//
// What makes an entry belong to a chain: its slot, unique among the chains that the ring holds. With an in-flight
// region that is all, since an entry is retired (A6) before its slot can be taken again, and since the region tells
// which slots are held. Without one, requests are returned in the order of the ring, so those that the ring still holds
// are those from its used index on: there the entry's ring position must match as well. (A split ring only, of a
// front-end that goes on at the used index as QEMU does; a packed one needs the region. A driver that resets its ring
// while no device is there is told from one that does not by positions that do not follow on each other up to the used
// index; a ring killed in its very first requests looks the same, so the region is better.)
//
// Memory order: a kill leaves a prefix of the program's order (see Queue/Inflight/PackedInflight), and a release store
// is not overtaken by what stands before it. But a plain store may go before a release store in front of it, so that
// all of these are release stores: A3 must not go before A2, nor A1 before the A6 of the slot's last request. On x64
// and arm64 that costs next to nothing.
// JournalCrashTests ends the device before each store, also the successor's; eng/journal-kills.sh kills processes.
//
// One lane belongs to one queue and its thread: no lock, and no state that two queues share. Nothing is allocated for a
// request. The file is created so that its magic is the last store; before that it is zero, and is begun anew.
using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Virtio.Journal;

/// <summary>A device's state file. Opened and disposed on the control plane, when no queue runs.</summary>
public sealed class DeviceJournal : IDisposable
{
    /// <summary>What is larger is no state file, and is not mapped to find that out.</summary>
    private const long MaxFileBytes = 1L << 30;

    private readonly OwnedFile _file;
    private readonly MemoryMapping _mapping;
    private readonly JournalLane[] _lanes;

    private DeviceJournal(OwnedFile file, MemoryMapping mapping, JournalLayout layout)
    {
        _file = file;
        _mapping = mapping;
        Layout = layout;
        MemoryWindow window = MemoryWindow.Of(mapping);
        if (window.Length < JournalLayout.HeaderBytes)
        {
            throw Foreign();
        }

        if (window.Read<ulong>(JournalLayout.MagicOffset) == 0)
        {
            Initialize(window);
        }

        CheckHeader(window);
        Owners = window.Read<ulong>(JournalLayout.OwnersOffset) + 1;
        window.WriteRelease64(JournalLayout.OwnersOffset, Owners);
        _lanes = new JournalLane[layout.LaneCount];
        for (int i = 0; i < _lanes.Length; i++)
        {
            _lanes[i] = new JournalLane(this, i, window.Slice(layout.Lane(i), layout.LaneBytes));
        }
    }

    /// <summary>What the file holds.</summary>
    public JournalLayout Layout { get; }

    /// <summary>What the file is, for messages.</summary>
    public string Name => _file.Name;

    /// <summary>How many processes have had the file, this one included.</summary>
    public ulong Owners { get; }

    /// <summary>Whether another process truncated the file under this one: what it holds is worthless.</summary>
    internal bool IsTruncated => _mapping.IsTruncated;

    /// <summary>Opens a state file, or makes one.</summary>
    /// <param name="path">The file, best on tmpfs; <c>/proc/self/fd/N</c> for an inherited memfd.</param>
    /// <param name="layout">What it holds.</param>
    /// <exception cref="JournalException">It is another file, another device's, or damaged.</exception>
    /// <exception cref="IOException">It cannot be opened, or another process has it.</exception>
    public static DeviceJournal Open(string path, JournalLayout layout) => Open(OwnedFile.Open(path), layout);

    /// <summary>Opens a state file, or makes one in a file that is empty.</summary>
    /// <param name="file">The file; belongs to the journal from now on, also when this fails.</param>
    /// <param name="layout">What it holds.</param>
    /// <exception cref="JournalException">It is another file, another device's, or damaged.</exception>
    /// <exception cref="IOException">There is no room for it.</exception>
    public static DeviceJournal Open(OwnedFile file, JournalLayout layout)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(layout);
        MemoryMapping? mapping = null;
        try
        {
            layout.Check();
            if (file.SizeBytes == 0)
            {
                file.Allocate(layout.FileBytes);
            }

            if (file.SizeBytes > MaxFileBytes)
            {
                throw new JournalException($"{file.Name}: not a state file; it is left as it is");
            }

            mapping = file.Map();
            return new DeviceJournal(file, mapping, layout);
        }
        catch
        {
            mapping?.Dispose();
            file.Dispose();
            throw;
        }
    }

    /// <summary>A journal that ends with this process, for a device whose state need not outlive it.</summary>
    public static DeviceJournal InMemory(JournalLayout layout)
    {
        using FileDescriptor memory = MemFd.CreateUnsealed("outboard-state", 0);
        return Open(OwnedFile.Open(memory, "a state in memory"), layout);
    }

    /// <summary>The lane of a queue, to be used on its thread.</summary>
    public JournalLane Lane(int index) => _lanes[index];

    /// <summary>Lets go of the file. No queue uses it any more.</summary>
    public void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }

    private byte[] MakeHeader()
    {
        byte[] header = new byte[JournalLayout.OwnersOffset];
        MemoryStream stream = new(header);
        using BinaryWriter writer = new(stream);
        writer.Write(JournalLayout.Magic);
        writer.Write(JournalLayout.Version);
        writer.Write((uint)Layout.Device);
        writer.Write((ulong)Layout.FileBytes);
        writer.Write(Layout.LaneCount);
        writer.Write(Layout.EntryCount);
        writer.Write(Layout.StateWords);
        writer.Write(Layout.RedoWords);
        writer.Write(Layout.ReplyBytes);
        stream.Position = JournalLayout.NameOffset;
        writer.Write(Encoding.ASCII.GetBytes(Layout.Name));
        stream.Position = JournalLayout.ChecksumOffset;
        writer.Write(Checksum(header));
        return header;
    }

    private static uint Checksum(ReadOnlySpan<byte> header)
    {
        uint sum = uint.MaxValue;
        for (int i = JournalLayout.VersionOffset; i < JournalLayout.ChecksumOffset; i += sizeof(ulong))
        {
            sum = BitOperations.Crc32C(sum, BinaryPrimitives.ReadUInt64LittleEndian(header[i..]));
        }

        return ~sum;
    }

    /// <summary>
    /// Makes a file of zeroes a state file. What a predecessor began with and did not end is begun anew; a file that
    /// holds anything else is left as it is.
    /// </summary>
    private void Initialize(MemoryWindow window)
    {
        byte[] header = MakeHeader();
        ReadOnlySpan<byte> found = window.Span;
        bool isOurs = window.Length == Layout.FileBytes
            && found[JournalLayout.OwnersOffset..].IndexOfAnyExcept((byte)0) < 0;
        for (int i = JournalLayout.VersionOffset; i < header.Length && isOurs; i++)
        {
            isOurs = found[i] == 0 || found[i] == header[i];
        }

        if (!isOurs)
        {
            throw Foreign();
        }

        _file.Allocate(Layout.FileBytes);
        for (uint i = JournalLayout.VersionOffset; i < header.Length; i += sizeof(ulong))
        {
            window.Write(i, BitConverter.ToUInt64(header, (int)i));
        }

        window.WriteRelease64(JournalLayout.MagicOffset, JournalLayout.Magic);
    }

    private void CheckHeader(MemoryWindow window)
    {
        if (window.Read<ulong>(JournalLayout.MagicOffset) != JournalLayout.Magic)
        {
            throw Foreign();
        }

        uint version = window.Read<uint>(JournalLayout.VersionOffset);
        if (version != JournalLayout.Version)
        {
            throw new JournalException(
                $"{Name}: a state file of version {version}; this program knows version {JournalLayout.Version}");
        }

        ReadOnlySpan<byte> found = window.Span[..JournalLayout.HeaderBytes];
        if (Checksum(found) != window.Read<uint>(JournalLayout.ChecksumOffset))
        {
            throw new JournalException($"{Name}: damaged, the checksum of its header is wrong");
        }

        string name = Encoding.ASCII.GetString(found.Slice(JournalLayout.NameOffset, JournalLayout.MaxNameBytes));
        CheckField("device type", JournalLayout.DeviceOffset, (int)Layout.Device, window);
        name = name.TrimEnd('\0');
        if (name != Layout.Name)
        {
            throw new JournalException($"{Name}: holds the state '{name}', '{Layout.Name}' is due");
        }

        CheckField("number of queues", JournalLayout.LanesOffset, Layout.LaneCount, window);
        CheckField("queue size", JournalLayout.EntriesOffset, Layout.EntryCount, window);
        CheckField("number of state words", JournalLayout.StateWordsOffset, Layout.StateWords, window);
        CheckField("number of redo words", JournalLayout.RedoWordsOffset, Layout.RedoWords, window);
        CheckField("reply size", JournalLayout.ReplyBytesOffset, Layout.ReplyBytes, window);
        if (window.Length != Layout.FileBytes)
        {
            throw new JournalException($"{Name}: has {window.Length} bytes, {Layout.FileBytes} are due");
        }
    }

    private void CheckField(string what, uint offset, int due, MemoryWindow window)
    {
        int found = window.Read<int>(offset);
        if (found != due)
        {
            throw new JournalException($"{Name}: made for another device: its {what} is {found}, {due} is due");
        }
    }

    private JournalException Foreign() => new($"{Name}: not a state file; it is left as it is");
}

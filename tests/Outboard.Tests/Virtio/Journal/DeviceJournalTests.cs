// A state file is opened by one process at a time, is told from any other file, and is never written over when it is
// not one. What a request changed is there after a restart, and nothing of one that was not committed.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Tests.Cli;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Journal;

public sealed class DeviceJournalTests : IDisposable
{
    private static readonly JournalLayout s_layout = new()
    {
        Device = VirtioDeviceId.DemoCounter,
        Name = "test 1",
        LaneCount = 2,
        EntryCount = 8,
        StateWords = 3,
        RedoWords = 2,
        ReplyBytes = 12,
    };

    private readonly TemporaryFolder _folder = new();

    private string Path => _folder["state"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void State_is_there_when_the_file_is_opened_again()
    {
        using (DeviceJournal journal = DeviceJournal.Open(Path, s_layout))
        {
            Assert.Equal(1u, journal.Owners);
            Commit(journal, slot: 3, (0, 17), (2, ulong.MaxValue));
            Commit(journal, slot: 4, (0, 18));
            Assert.Equal(18u, journal.Lane(1).Read(0));
        }

        Assert.Equal(s_layout.FileBytes, new FileInfo(Path).Length);
        using DeviceJournal again = DeviceJournal.Open(Path, s_layout);
        Assert.Equal(2u, again.Owners);
        Assert.Equal([18u, 0u, ulong.MaxValue], Enumerable.Range(0, 3).Select(again.Lane(1).Read));
        Assert.Equal(0u, again.Lane(0).Read(0));
    }

    [Fact]
    public void A_request_that_is_abandoned_changes_nothing()
    {
        using DeviceJournal journal = DeviceJournal.InMemory(s_layout);
        JournalLane lane = journal.Lane(1);
        Commit(journal, slot: 0, (1, 5));
        lane.Begin();
        lane.Write(1, 6);
        lane.Write(1, 7);
        Assert.Equal(7u, lane.Read(1));
        lane.Abandon();
        Assert.Equal(5u, lane.Read(1));
        lane.Begin();
        lane.Write(0, 1);
        lane.Write(1, 1);
        Assert.Throws<Outboard.Virtio.InvariantException>(() => lane.Write(2, 1));
    }

    [Fact]
    public void One_process_has_it_at_a_time()
    {
        using DeviceJournal journal = DeviceJournal.Open(Path, s_layout);
        LinuxException error = Assert.Throws<LinuxException>(
            () => DeviceJournal.Open(OwnedFile.Open(Path, TimeSpan.Zero), s_layout));
        Assert.Contains($"{Path} is in use by another process", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_memfd_that_a_supervisor_keeps_is_a_state_file_and_its_lock_is_not_shared()
    {
        using FileDescriptor kept = MemFd.CreateUnsealed("state", 0);
        using (DeviceJournal journal = DeviceJournal.Open(OwnedFile.Open(kept, "the memfd"), s_layout))
        {
            Commit(journal, slot: 0, (0, 9));
            using FileDescriptor inherited = kept.Duplicate();
            Assert.Throws<LinuxException>(() => OwnedFile.Open(inherited, "the memfd", TimeSpan.Zero));
        }

        using DeviceJournal again = DeviceJournal.Open(OwnedFile.Open(kept, "the memfd"), s_layout);
        Assert.Equal(9u, again.Lane(1).Read(0));
    }

    [Theory]
    [InlineData("")]
    [InlineData("version")]
    [InlineData("name")]
    [InlineData("device")]
    [InlineData("checksum")]
    [InlineData("queues")]
    [InlineData("entries")]
    [InlineData("words")]
    [InlineData("redo")]
    [InlineData("reply")]
    [InlineData("short")]
    [InlineData("long")]
    public void A_file_of_another_kind_or_shape_is_refused_and_left_as_it_is(string what)
    {
        DeviceJournal.Open(Path, s_layout).Dispose();
        byte[] bytes = File.ReadAllBytes(Path);
        (JournalLayout layout, string word) = what switch
        {
            "version" => (Edit(bytes, 8, 2), "version 2; this program knows version 1"),
            "name" => (s_layout with { Name = "test 2" }, "'test 1', 'test 2' is due"),
            "device" => (s_layout with { Device = VirtioDeviceId.Console }, "its device type is 61, 3 is due"),
            "checksum" => (Edit(bytes, 50, 0x20), "the checksum of its header is wrong"),
            "queues" => (s_layout with { LaneCount = 1 }, "number of queues is 2, 1 is due"),
            "entries" => (s_layout with { EntryCount = 16 }, "queue size is 8, 16 is due"),
            "words" => (s_layout with { StateWords = 9 }, "state words is 3, 9 is due"),
            "redo" => (s_layout with { RedoWords = 3 }, "redo words is 2, 3 is due"),
            "reply" => (s_layout with { ReplyBytes = 0 }, "reply size is 12, 0 is due"),
            "short" => (Cut(ref bytes, bytes.Length - 8), "bytes, "),
            "long" => (Cut(ref bytes, bytes.Length + 8), "bytes, "),
            _ => (Edit(bytes, 0, 0x41), "not a state file"),
        };
        File.WriteAllBytes(Path, bytes);
        JournalException error = Assert.Throws<JournalException>(() => DeviceJournal.Open(Path, layout));
        Assert.StartsWith($"{Path}: ", error.Message, StringComparison.Ordinal);
        Assert.Contains(word, error.Message, StringComparison.Ordinal);
        Assert.Equal(bytes, File.ReadAllBytes(Path));
    }

    [Theory]
    [InlineData(5)]
    [InlineData(4096)]
    [InlineData(1 << 20)]
    public void A_file_with_something_else_in_it_is_refused_and_left_as_it_is(int length)
    {
        byte[] bytes = new byte[length];
        bytes[^1] = 1;
        File.WriteAllBytes(Path, bytes);
        Assert.Throws<JournalException>(() => DeviceJournal.Open(Path, s_layout));
        Assert.Equal(bytes, File.ReadAllBytes(Path));
    }

    [Fact]
    public void A_file_of_the_right_size_with_something_else_behind_a_zero_is_refused()
    {
        byte[] bytes = new byte[s_layout.FileBytes];
        bytes[300] = 1;
        File.WriteAllBytes(Path, bytes);
        Assert.Throws<JournalException>(() => DeviceJournal.Open(Path, s_layout));
        Assert.Equal(bytes, File.ReadAllBytes(Path));
    }

    [Fact]
    public void What_is_no_regular_file_or_has_no_folder_is_refused()
    {
        Assert.Throws<LinuxException>(() => DeviceJournal.Open("/dev/null", s_layout));
        Assert.Throws<LinuxException>(() => DeviceJournal.Open(_folder["none/state"], s_layout));
        Assert.Throws<LinuxException>(() => DeviceJournal.Open("/", s_layout));
    }

    [Theory]
    [InlineData(0, 0x02)]
    [InlineData(1, 0x09)]
    [InlineData(4, 0x40)]
    [InlineData(8, 0x60)]
    [InlineData(12, 0x01)]
    [InlineData(16, 0x07)]
    [InlineData(24, 0x01)]
    [InlineData(48, 0x01)]
    public void A_damaged_entry_is_told(int offset, byte value)
    {
        using (DeviceJournal journal = DeviceJournal.Open(Path, s_layout))
        {
            Commit(journal, slot: 2, (0, 17), (1, 18));
        }

        byte[] bytes = File.ReadAllBytes(Path);
        int entry = (int)(s_layout.Lane(1) + s_layout.EntriesStart + (2 * s_layout.EntryBytes));
        bytes[entry + offset] ^= value;
        File.WriteAllBytes(Path, bytes);
        JournalException error = Assert.Throws<JournalException>(() => DeviceJournal.Open(Path, s_layout));
        Assert.Contains("damaged: entry 2 of queue 1", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_truncated_under_its_owner_stops_it()
    {
        using DeviceJournal journal = DeviceJournal.Open(Path, s_layout);
        using (FileStream other = new(Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            other.SetLength(0);
        }

        Commit(journal, slot: 0, (0, 1));
        using DriverMemory memory = new(1 << 16);
        DriverQueue ring = DriverQueue.Create(0, 4, memory, VirtioFeatures.Version1);
        using Virtqueue queue = Virtqueue.Create(
            VirtqueuePropertyTests.Setup(ring, memory, VirtioFeatures.Version1));
        Assert.Throws<JournalException>(() => journal.Lane(1).Retire(queue));
    }

    private static JournalLayout Edit(byte[] bytes, int offset, byte value)
    {
        bytes[offset] = value;
        return s_layout;
    }

    private static JournalLayout Cut(ref byte[] bytes, int length)
    {
        Array.Resize(ref bytes, length);
        return s_layout;
    }

    private static void Commit(DeviceJournal journal, int slot, params (int Word, ulong Value)[] changes)
    {
        JournalLane lane = journal.Lane(1);
        lane.Begin();
        foreach ((int word, ulong value) in changes)
        {
            lane.Write(word, value);
        }

        lane.Reply([1, 2, 3]);
        Assert.Equal([1, 2, 3], lane.Commit(slot, position: 7).ToArray());
    }
}

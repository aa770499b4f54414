// What the two demonstration devices have in common: numbers that survive their process, one queue, and requests that
// are each answered by a number and a status. A device says what a request does to the numbers; see RegisterRequests.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Register;

/// <summary>Numbers that requests change.</summary>
public abstract class NumberDevice : VirtioDevice
{
    /// <summary>Largest size of the queue, and the entries of the journal.</summary>
    public const int QueueSize = 256;

    internal const int ValueWord = 0;

    private readonly DeviceJournal _journal;
    private readonly NumberEffect _effect;
    private readonly string[] _records;

    /// <param name="journal">Stays the caller's to dispose.</param>
    /// <param name="id">The device type.</param>
    /// <param name="effect">What a request does.</param>
    /// <param name="records">What each of the numbers is called in a saved state.</param>
    private protected NumberDevice(
        DeviceJournal journal, VirtioDeviceId id, NumberEffect effect, params string[] records)
        : base(id, [QueueSize])
    {
        ArgumentNullException.ThrowIfNull(journal);
        _journal = journal;
        _effect = effect;
        _records = records;
    }

    /// <summary>
    /// How much later requests take effect, at most; each after a while of its own, so that they do in any order. Zero
    /// for at once.
    /// </summary>
    public TimeSpan LongestDelay { get; init; }

    /// <summary>The number that requests are about. From any thread.</summary>
    public ulong Value => Word(ValueWord);

    private protected static JournalLayout LayoutOf(VirtioDeviceId device, string name, int words) => new()
    {
        Device = device,
        Name = name,
        EntryCount = QueueSize,
        StateWords = words,
        RedoWords = words,
        ReplyBytes = RegisterRequests.ReplyBytes,
    };

    private protected ulong Word(int word) => _journal.Lane(0).Read(word);

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        JournalLane lane = _journal.Lane(0);
        return LongestDelay > TimeSpan.Zero
            ? new NumberQueue(context, lane, _effect, LongestDelay)
            : new NumberQueue(context.Queue, lane, _effect);
    }

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer)
    {
        for (int word = 0; word < _records.Length; word++)
        {
            writer.Write(_records[word], Word(word));
        }
    }

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        ulong[] values = [.. _records.Select(name => reader.ReadNumber(name))];
        return () =>
        {
            for (int word = 0; word < values.Length; word++)
            {
                _journal.Lane(0).Restore(word, values[word]);
            }
        };
    }
}

// A counter that survives its process: requests add to it, and each is told the sum. A demonstration of DeviceJournal,
// since doing a request twice shows at once. The device type is this project's own; see RegisterRequests.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Register;

/// <summary>A persistent counter.</summary>
public sealed class CounterDevice : VirtioDevice
{
    /// <summary>Largest size of the queue, and the entries of the journal.</summary>
    public const int QueueSize = 256;

    private const int ValueWord = 0;
    private const string ValueRecord = "valu";

    private readonly DeviceJournal _journal;

    /// <summary>Makes the device on a journal of <see cref="Layout"/>, which stays the caller's to dispose.</summary>
    public CounterDevice(DeviceJournal journal)
        : base(VirtioDeviceId.DemoCounter, [QueueSize])
    {
        ArgumentNullException.ThrowIfNull(journal);
        _journal = journal;
    }

    /// <summary>What the journal holds.</summary>
    public static JournalLayout Layout { get; } = new()
    {
        Device = VirtioDeviceId.DemoCounter,
        Name = "counter 1",
        EntryCount = QueueSize,
        ReplyBytes = RegisterRequests.ReplyBytes,
    };

    /// <summary>The counter. From any thread.</summary>
    public ulong Value => _journal.Lane(0).Read(ValueWord);

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        return new CounterQueue(context.Queue, _journal.Lane(0));
    }

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer) => writer.Write(ValueRecord, Value);

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        ulong value = reader.ReadNumber(ValueRecord);
        return () => _journal.Lane(0).Restore(ValueWord, value);
    }

    /// <summary>The queue.</summary>
    internal sealed class CounterQueue(Virtqueue queue, JournalLane lane) : JournaledQueue(queue, lane)
    {
        protected override bool TryHandle(scoped in DescriptorChain chain)
        {
            Span<byte> bytes = stackalloc byte[RegisterRequests.CounterBytes];
            RegisterStatus status = RegisterStatus.Done;
            ulong amount = 1;
            if (chain.Readable.Length == bytes.Length && chain.Readable.CopyTo(0, bytes) == bytes.Length)
            {
                amount = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
            }
            else if (chain.Readable.Length != 0)
            {
                status = RegisterStatus.Malformed;
            }

            ulong value = Lane.Read(ValueWord);
            if (status == RegisterStatus.Done)
            {
                value += amount;
                Lane.Write(ValueWord, value);
            }

            Span<byte> reply = stackalloc byte[RegisterRequests.ReplyBytes];
            BinaryPrimitives.WriteUInt64LittleEndian(reply, value);
            reply[RegisterRequests.StatusOffset] = (byte)status;
            Lane.Reply(reply);
            return true;
        }
    }
}

// A register that survives its process, changed by compare-and-swap: of all operations the one that fails most plainly
// when it is done twice. A demonstration of DeviceJournal, with a device type of this project's own; see
// RegisterRequests.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Register;

/// <summary>A persistent compare-and-swap register.</summary>
public sealed class RegisterDevice : VirtioDevice
{
    /// <summary>Largest size of the queue, and the entries of the journal.</summary>
    public const int QueueSize = 256;

    private const int ValueWord = 0;
    private const int SwapsWord = 1;
    private const string ValueRecord = "valu";
    private const string SwapsRecord = "swap";

    private readonly DeviceJournal _journal;

    /// <summary>Makes the device on a journal of <see cref="Layout"/>, which stays the caller's to dispose.</summary>
    public RegisterDevice(DeviceJournal journal)
        : base(VirtioDeviceId.DemoRegister, [QueueSize])
    {
        ArgumentNullException.ThrowIfNull(journal);
        _journal = journal;
    }

    /// <summary>What the journal holds.</summary>
    public static JournalLayout Layout { get; } = new()
    {
        Device = VirtioDeviceId.DemoRegister,
        Name = "register 1",
        EntryCount = QueueSize,
        StateWords = 2,
        RedoWords = 2,
        ReplyBytes = RegisterRequests.ReplyBytes,
    };

    /// <summary>The register. From any thread.</summary>
    public ulong Value => _journal.Lane(0).Read(ValueWord);

    /// <summary>How often it was swapped. From any thread.</summary>
    public ulong Swaps => _journal.Lane(0).Read(SwapsWord);

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        return new RegisterQueue(context.Queue, _journal.Lane(0));
    }

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer)
    {
        writer.Write(ValueRecord, Value);
        writer.Write(SwapsRecord, Swaps);
    }

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        ulong value = reader.ReadNumber(ValueRecord);
        ulong swaps = reader.ReadNumber(SwapsRecord);
        return () =>
        {
            _journal.Lane(0).Restore(ValueWord, value);
            _journal.Lane(0).Restore(SwapsWord, swaps);
        };
    }

    /// <summary>The queue.</summary>
    internal sealed class RegisterQueue(Virtqueue queue, JournalLane lane) : JournaledQueue(queue, lane)
    {
        protected override bool TryHandle(scoped in DescriptorChain chain)
        {
            Span<byte> bytes = stackalloc byte[RegisterRequests.RegisterBytes];
            ulong old = Lane.Read(ValueWord);
            RegisterStatus status = RegisterStatus.Malformed;
            if (chain.Readable.Length == bytes.Length && chain.Readable.CopyTo(0, bytes) == bytes.Length)
            {
                bool isExpected = BinaryPrimitives.ReadUInt64LittleEndian(bytes) == old;
                status = isExpected ? RegisterStatus.Done : RegisterStatus.Differs;
            }

            if (status == RegisterStatus.Done)
            {
                Lane.Write(ValueWord, BinaryPrimitives.ReadUInt64LittleEndian(bytes[sizeof(ulong)..]));
                Lane.Write(SwapsWord, Lane.Read(SwapsWord) + 1);
            }

            Span<byte> reply = stackalloc byte[RegisterRequests.ReplyBytes];
            BinaryPrimitives.WriteUInt64LittleEndian(reply, old);
            reply[RegisterRequests.StatusOffset] = (byte)status;
            Lane.Reply(reply);
            return true;
        }
    }
}

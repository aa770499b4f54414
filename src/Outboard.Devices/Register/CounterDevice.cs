// A counter that survives its process: requests add to it, and each is told the sum. A demonstration of DeviceJournal,
// since doing a request twice shows at once. The device type is this project's own; see RegisterRequests.
using System.Buffers.Binary;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Register;

/// <summary>A persistent counter.</summary>
/// <param name="journal">A journal of <see cref="Layout"/>, which stays the caller's to dispose.</param>
public sealed class CounterDevice(DeviceJournal journal)
    : NumberDevice(journal, VirtioDeviceId.DemoCounter, Add, "valu")
{
    /// <summary>What the journal holds.</summary>
    public static JournalLayout Layout { get; } = LayoutOf(VirtioDeviceId.DemoCounter, "counter 1", words: 1);

    internal static RegisterStatus Add(ReadOnlySpan<byte> request, JournalLane lane, ref ulong value)
    {
        if (request.Length is not (0 or RegisterRequests.CounterBytes))
        {
            return RegisterStatus.Malformed;
        }

        value += request.IsEmpty ? 1 : BinaryPrimitives.ReadUInt64LittleEndian(request);
        lane.Write(ValueWord, value);
        return RegisterStatus.Done;
    }
}

// A register that survives its process, changed by compare-and-swap: of all operations the one that fails most plainly
// when it is done twice. A demonstration of DeviceJournal, with a device type of this project's own; see
// RegisterRequests.
using System.Buffers.Binary;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Register;

/// <summary>A persistent compare-and-swap register.</summary>
/// <param name="journal">A journal of <see cref="Layout"/>, which stays the caller's to dispose.</param>
public sealed class RegisterDevice(DeviceJournal journal)
    : NumberDevice(journal, VirtioDeviceId.DemoRegister, Swap, "valu", "swap")
{
    private const int SwapsWord = 1;

    /// <summary>What the journal holds.</summary>
    public static JournalLayout Layout { get; } = LayoutOf(VirtioDeviceId.DemoRegister, "register 1", words: 2);

    /// <summary>How often it was swapped. From any thread.</summary>
    public ulong Swaps => Word(SwapsWord);

    internal static RegisterStatus Swap(ReadOnlySpan<byte> request, JournalLane lane, ref ulong value)
    {
        if (request.Length != RegisterRequests.RegisterBytes)
        {
            return RegisterStatus.Malformed;
        }

        if (BinaryPrimitives.ReadUInt64LittleEndian(request) != value)
        {
            return RegisterStatus.Differs;
        }

        lane.Write(ValueWord, BinaryPrimitives.ReadUInt64LittleEndian(request[sizeof(ulong)..]));
        lane.Write(SwapsWord, lane.Read(SwapsWord) + 1);
        return RegisterStatus.Done;
    }
}

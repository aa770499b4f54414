// DEVICE_SET_IRQS. An eventfd that is bound to UNMASK (or MASK) is an input: signalling it unmasks the interrupt, as
// the kernel's own VFIO has it for level-triggered interrupts.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

internal sealed partial class ServerSession
{
    private const string SetIrqsName = "DEVICE_SET_IRQS";

    private readonly Dictionary<(uint Index, uint Vector, bool Masks), IDisposable> _watches = [];

    private ValueTask DeviceSetIrqs(VfioUserMessage message)
    {
        SetIrqsPayload asked = message.Read<SetIrqsPayload>();
        ReadOnlyMemory<byte> data = message.Payload[SetIrqsPayload.Bytes..];
        RequireWellFormed(asked, data.Length, message.Attachments);
        InterruptVectors vectors = _function.Interrupts[(InterruptKind)asked.Index];
        SetIrqsFlags action = asked.Flags & SetIrqsFlags.AllActions;
        if ((asked.Flags & SetIrqsFlags.DataEventFd) != 0)
        {
            BindAll(asked, vectors, action, message.Attachments);
            return _function.ChangeInterruptsAsync();
        }

        if (asked.Count == 0)
        {
            for (int vector = 0; vector < vectors.Count; vector++)
            {
                vectors.Bind(vector, null);
            }

            return _function.ChangeInterruptsAsync();
        }

        for (uint i = 0; i < asked.Count; i++)
        {
            if ((asked.Flags & SetIrqsFlags.DataNone) != 0 || data.Span[(int)i] != 0)
            {
                Act(vectors, action, (int)(asked.Start + i));
            }
        }

        return action == SetIrqsFlags.Trigger ? default : _function.ChangeInterruptsAsync();
    }

    private static void Act(InterruptVectors vectors, SetIrqsFlags action, int vector)
    {
        if (action == SetIrqsFlags.Trigger)
        {
            _ = vectors.Trigger(vector);
        }
        else if (action == SetIrqsFlags.Unmask)
        {
            // QEMU without interrupts of the kernel's does so at each access of a BAR
            vectors.UnmaskByAccess(vector);
        }
        else
        {
            vectors.SetMasked(vector, true);
        }
    }

    /// <summary>Binds eventfds to vectors, or none: all of them, or (when one of them cannot be bound)
    /// nothing.</summary>
    private void BindAll(
        SetIrqsPayload asked, InterruptVectors vectors, SetIrqsFlags action, IReadOnlyList<Attachment> attachments)
    {
        try
        {
            foreach (Attachment attachment in attachments)
            {
                attachment.RequireEvent();
            }
        }
        catch (IOException error)
        {
            throw new ProtocolException(SetIrqsName, "descriptors", error.Message);
        }

        for (uint i = 0; i < asked.Count; i++)
        {
            uint vector = asked.Start + i;
            Attachment? attachment = attachments.Count == 0 ? null : attachments[(int)i];
            if (action == SetIrqsFlags.Trigger)
            {
                vectors.Bind((int)vector, attachment?.ToInterruptLine());
            }
            else
            {
                Watch(asked.Index, vector, vectors, action == SetIrqsFlags.Mask, attachment);
            }
        }
    }

    private void Watch(uint index, uint vector, InterruptVectors vectors, bool masks, Attachment? attachment)
    {
        if (_watches.Remove((index, vector, masks), out IDisposable? before))
        {
            before.Dispose();
        }

        if (attachment is not null)
        {
            EventFd eventFd = attachment.ToEvent();
            try
            {
                _watcher ??= new EventWatcher("vfio-user/irq");
                _watches[(index, vector, masks)] =
                    _watcher.Add(eventFd, _ => vectors.SetMasked((int)vector, masks), owns: true);
            }
            catch (LinuxException error)
            {
                eventFd.Dispose();
                throw new ProtocolException(SetIrqsName, "descriptors", error.Message);
            }
        }
    }

    private void ReleaseWatches()
    {
        foreach (IDisposable watch in _watches.Values)
        {
            watch.Dispose();
        }

        _watches.Clear();
    }

    private void RequireWellFormed(SetIrqsPayload asked, int dataBytes, IReadOnlyList<Attachment> attachments)
    {
        RequireArgsz(SetIrqsName, asked.Argsz, SetIrqsPayload.Bytes);
        SetIrqsFlags data = asked.Flags & SetIrqsFlags.AllData;
        SetIrqsFlags action = asked.Flags & SetIrqsFlags.AllActions;
        bool isOneOfEach = asked.Flags == (data | action)
            && data is SetIrqsFlags.DataNone or SetIrqsFlags.DataBool or SetIrqsFlags.DataEventFd
            && action is SetIrqsFlags.Mask or SetIrqsFlags.Unmask or SetIrqsFlags.Trigger;
        Require(isOneOfEach, "flags", $"0x{(uint)asked.Flags:x}: one kind of data and one action are due");
        Require(asked.Index < IrqKinds, "index", $"{asked.Index} of {IrqKinds} kinds");
        bool isAbout = (InterruptKind)asked.Index is InterruptKind.Error or InterruptKind.Request;
        Require(
            !isAbout || action == SetIrqsFlags.Trigger, "flags", $"interrupt kind {asked.Index} cannot be masked");
        RequireRange(asked, data, action);
        int expectedBytes = data == SetIrqsFlags.DataBool ? (int)asked.Count : 0;
        Require(dataBytes == expectedBytes, "data", $"{dataBytes} bytes, {expectedBytes} are due");
        bool fits = attachments.Count == 0
            || (data == SetIrqsFlags.DataEventFd && attachments.Count == asked.Count);
        Require(fits, "descriptors", $"{attachments.Count} came for {asked.Count} interrupts");
    }

    private void RequireRange(SetIrqsPayload asked, SetIrqsFlags data, SetIrqsFlags action)
    {
        uint count = (uint)_function.Interrupts[(InterruptKind)asked.Index].Count;
        if (asked.Count == 0)
        {
            // all of a kind are let go of; also where there are none, as QEMU does at each reset
            bool isDisable = data == SetIrqsFlags.DataNone && action == SetIrqsFlags.Trigger && asked.Start == 0;
            Require(isDisable, "count", "0 is for NONE with TRIGGER from 0 on");
            return;
        }

        Require(
            asked.Start < count && asked.Count <= count - asked.Start, "start",
            $"{asked.Count} from {asked.Start} on, of {count}");
    }

    private static void Require(bool condition, string field, string problem)
    {
        if (!condition)
        {
            throw new ProtocolException(SetIrqsName, field, problem);
        }
    }
}

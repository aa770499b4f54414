// The two control queues of a console with several ports. Each message that the device may send has a bit, four for a
// port. The driver's messages set bits in the one queue's lane, sending one sets its bit in the other's; what is asked
// for and not sent is sent, lowest first. Both are journaled, so that a guest gets each message exactly once. A driver
// that begins anew is counted; what was sent to an earlier one does not count.
//
//   DEVICE_READY        -> a new driver; PORT_ADD of each port
//   PORT_READY (a port) -> CONSOLE_PORT if it is the console, PORT_NAME if it has one, PORT_OPEN
using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Console;

/// <summary>The bits of the messages.</summary>
internal static class ConsoleControl
{
    internal const int BitsPerPort = 4;
    internal const int MessagesWord = 0;
    internal const int DriverWord = 1;

    private static readonly ConsoleEvent[] s_events =
        [ConsoleEvent.PortAdd, ConsoleEvent.ConsolePort, ConsoleEvent.PortName, ConsoleEvent.PortOpen];

    /// <summary>The event of a bit.</summary>
    internal static ConsoleEvent EventOf(int bit) => s_events[bit % BitsPerPort];

    /// <summary>The bit of a port's message.</summary>
    internal static ulong Bit(int port, ConsoleEvent what) =>
        1UL << ((port * BitsPerPort) + Array.IndexOf(s_events, what));
}

/// <summary>What the driver says.</summary>
internal sealed class ConsoleControlReader(ConsoleDevice device, QueueContext context, JournalLane lane)
    : JournaledQueue(context.Queue, lane)
{
    protected override bool TryHandle(scoped in DescriptorChain chain)
    {
        Span<byte> message = stackalloc byte[ConsoleSpec.MessageBytes];
        if (chain.Readable.CopyTo(0, message) < message.Length)
        {
            return true;
        }

        uint port = BinaryPrimitives.ReadUInt32LittleEndian(message);
        ConsoleEvent what = (ConsoleEvent)BinaryPrimitives.ReadUInt16LittleEndian(message[4..]);
        if (BinaryPrimitives.ReadUInt16LittleEndian(message[6..]) != 1)
        {
            return true;
        }

        if (what == ConsoleEvent.DeviceReady)
        {
            Lane.Write(ConsoleControl.DriverWord, device.DriverCount + 1);
            Lane.Write(ConsoleControl.MessagesWord, EveryPort());
        }
        else if (what == ConsoleEvent.PortReady && port < (uint)device.Ports.Count)
        {
            Lane.Write(ConsoleControl.MessagesWord, Lane.Read(ConsoleControl.MessagesWord) | About((int)port));
        }

        return true;
    }

    protected override void OnCommitted(scoped in DescriptorChain chain) => device.OnMessagesRequested();

    private ulong EveryPort()
    {
        ulong messages = 0;
        for (int port = 0; port < device.Ports.Count; port++)
        {
            messages |= ConsoleControl.Bit(port, ConsoleEvent.PortAdd);
        }

        return messages;
    }

    private ulong About(int port)
    {
        ulong messages = ConsoleControl.Bit(port, ConsoleEvent.PortOpen);
        messages |= port == 0 ? ConsoleControl.Bit(port, ConsoleEvent.ConsolePort) : 0;
        return messages | (device.Ports[port].Name.Length > 0 ? ConsoleControl.Bit(port, ConsoleEvent.PortName) : 0);
    }
}

/// <summary>What the driver is told.</summary>
internal sealed class ConsoleControlWriter(ConsoleDevice device, QueueContext context, JournalLane lane)
    : JournaledQueue(context.Queue, lane)
{
    /// <summary>From any thread, while the device knows this queue.</summary>
    internal void Wake() => context.Wake();

    public override void Dispose()
    {
        device.Ended(this);
        base.Dispose();
    }

    protected override bool TryHandle(scoped in DescriptorChain chain)
    {
        ulong driver = device.DriverCount;
        ulong sent = Lane.Read(ConsoleControl.DriverWord) == driver ? Lane.Read(ConsoleControl.MessagesWord) : 0;
        ulong due = device.RequestedMessages & ~sent;
        if (due == 0)
        {
            return false;
        }

        int bit = BitOperations.TrailingZeroCount(due);
        int port = bit / ConsoleControl.BitsPerPort;
        ConsoleEvent what = ConsoleControl.EventOf(bit);
        Span<byte> message = stackalloc byte[ConsoleSpec.MessageBytes + ConsolePort.MaxNameBytes];
        BinaryPrimitives.WriteInt32LittleEndian(message, port);
        BinaryPrimitives.WriteUInt16LittleEndian(message[4..], (ushort)what);
        BinaryPrimitives.WriteUInt16LittleEndian(message[6..], 1);
        int length = ConsoleSpec.MessageBytes;
        if (what == ConsoleEvent.PortName)
        {
            length += Encoding.ASCII.GetBytes(device.Ports[port].Name, message[length..]);
        }

        Lane.Write(ConsoleControl.DriverWord, driver);
        Lane.Write(ConsoleControl.MessagesWord, sent | (1UL << bit));
        Lane.Reply(message[..length]);
        return true;
    }
}

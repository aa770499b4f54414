// The console: output goes to its log once and in order, input comes from its terminal, a driver with several ports is
// told of each of them once, and what a guest does wrong harms nobody.
using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using Outboard.Devices.Console;
using Outboard.Devices.Console.Backends;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Tests.Cli;
using Outboard.Tests.VhostUser;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Console;

public sealed class ConsoleDeviceTests : IDisposable
{
    private const int Receive = 0;
    private const int Transmit = 1;
    private const int SecondTransmit = 5;

    private readonly TemporaryFolder _folder = new();

    private string LogPath => _folder["log"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Output_is_appended_to_the_log_over_lives_of_the_device()
    {
        _folder.Write("log", "before ");
        ConsoleDeviceOptions shape = new();
        for (int life = 0; life < 3; life++)
        {
            using ConsoleLog log = ConsoleLog.Open(LogPath);
            using DeviceJournal journal = DeviceJournal.Open(_folder["state"], ConsoleDevice.LayoutFor(shape));
            using ConsoleDevice device = new(journal, shape with { Ports = [new ConsolePort { Log = log }] });
            await using QueueRig rig = new(device);
            DrivenQueue queue = await rig.StartAsync(Transmit);
            Send(rig, queue, $"life {life}, ", "in two buffers; ");
        }

        Assert.Equal(
            "before life 0, in two buffers; life 1, in two buffers; life 2, in two buffers; ",
            await File.ReadAllTextAsync(LogPath, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task What_was_written_and_not_committed_is_cut_off()
    {
        ConsoleDeviceOptions shape = new();
        for (int life = 0; life < 2; life++)
        {
            using ConsoleLog log = ConsoleLog.Open(LogPath);
            using DeviceJournal journal = DeviceJournal.Open(_folder["state"], ConsoleDevice.LayoutFor(shape));
            using ConsoleDevice device = new(journal, shape with { Ports = [new ConsolePort { Log = log }] });
            await using QueueRig rig = new(device);
            Send(rig, await rig.StartAsync(Transmit), "abc");
            log.Cut(100);
        }

        using ConsoleLog last = ConsoleLog.Open(LogPath);
        using DeviceJournal again = DeviceJournal.Open(_folder["state"], ConsoleDevice.LayoutFor(shape));
        new ConsoleDevice(again, shape with { Ports = [new ConsolePort { Log = last }] }).Dispose();
        Assert.Equal(6, last.SizeBytes);
        last.Cut(2);
        IOException error = Assert.Throws<IOException>(
            () => new ConsoleDevice(again, shape with { Ports = [new ConsolePort { Log = last }] }));
        Assert.Contains("has 2 bytes, 6 were written", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_log_that_cannot_be_written_holds_output_in_the_ring()
    {
        using FileDescriptor sealedFile = MemFd.Create("full", 4096);
        using ConsoleLog log = ConsoleLog.Open($"/proc/self/fd/{sealedFile.Number}");
        List<int> told = [];
        ConsoleDeviceOptions options = new() { Ports = [new ConsolePort { Log = log }] };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        device.LogChanged += (_, error) => told.Add(error);
        await using QueueRig rig = new(device);
        DrivenQueue queue = await rig.StartAsync(Transmit);
        DriverBuffer buffer = Text(rig, "no room");
        Assert.True(queue.Ring.TryAdd([buffer], [], 1));
        queue.Submit();
        queue.ExpectNothing();
        Assert.Equal(0u, await queue.StopAsync());
        Assert.Equal([Errno.NotPermitted], told);
    }

    [Fact]
    public async Task A_pseudo_terminal_shows_output_and_gives_input()
    {
        using StreamTerminal terminal = new(TerminalStream.CreatePseudoTerminal());
        ConsoleDeviceOptions options = new() { Ports = [new ConsolePort { Terminal = terminal }] };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        await using QueueRig rig = new(device);
        Send(rig, await rig.StartAsync(Transmit), "to the person\n");
        await using FileStream person = new(terminal.Description, FileMode.Open, FileAccess.ReadWrite);
        byte[] seen = new byte[14];
        await person.ReadExactlyAsync(seen, TestContext.Current.CancellationToken);
        Assert.Equal("to the person\n", Encoding.ASCII.GetString(seen));
        await person.WriteAsync("to the guest\r"u8.ToArray(), TestContext.Current.CancellationToken);
        await person.FlushAsync(TestContext.Current.CancellationToken);
        DrivenQueue queue = await rig.StartAsync(Receive);
        Assert.Equal("to the guest\r", Take(rig, queue, 13));
    }

    [Fact]
    public async Task A_socket_serves_one_peer_after_another()
    {
        using SocketTerminal terminal = new(UnixListener.Bind(_folder["s"]), "s");
        ConsoleDeviceOptions options = new() { Ports = [new ConsolePort { Terminal = terminal }] };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        await using QueueRig rig = new(device);
        DrivenQueue input = await rig.StartAsync(Receive);
        DrivenQueue output = await rig.StartAsync(Transmit);
        Send(rig, output, "nobody hears this");
        for (int peer = 0; peer < 3; peer++)
        {
            using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(
                new UnixDomainSocketEndPoint(_folder["s"]), TestContext.Current.CancellationToken);
            byte[] text = Encoding.ASCII.GetBytes(new string((char)('a' + peer), 10_000));
            Assert.Equal(text.Length, await socket.SendAsync(text, TestContext.Current.CancellationToken));
            Assert.Equal(text, Encoding.ASCII.GetBytes(Take(rig, input, text.Length)));
            Send(rig, output, "heard");
            byte[] heard = new byte[5];
            Assert.Equal(5, await socket.ReceiveAsync(heard, TestContext.Current.CancellationToken));
        }
    }

    [Fact]
    public async Task A_driver_with_several_ports_is_told_of_each_once_in_each_of_its_lives()
    {
        using ConsoleLog log = ConsoleLog.Open(LogPath);
        ConsoleDeviceOptions options = new()
        {
            Columns = 100,
            Rows = 40,
            Ports = [new ConsolePort(), new ConsolePort { Name = "org.example.1", Log = log }],
        };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        Assert.Equal(
            ConsoleFeatures.Size | ConsoleFeatures.Multiport | ConsoleFeatures.EmergencyWrite, device.DeviceFeatures);
        Assert.Equal(6, device.QueueCount);
        Assert.Equal(100u, device.Config.Get(ConsoleConfig.Columns));
        Assert.Equal(2u, device.Config.Get(ConsoleConfig.PortCount));
        await using QueueRig rig = new(device);
        DrivenQueue toDriver = await rig.StartAsync(ConsoleSpec.ControlToDriver);
        DrivenQueue toDevice = await rig.StartAsync(ConsoleSpec.ControlToDevice);
        for (int i = 0; i < 12; i++)
        {
            toDriver.Ring.TryAdd([], [rig.Memory.Allocate(64)], (uint)i);
        }

        toDriver.Submit();
        foreach (byte[] wrong in (byte[][])
            [[], [1, 2, 3], Message(7, ConsoleEvent.PortReady, 1), Message(0, ConsoleEvent.DeviceReady, 0),
             Message(0, (ConsoleEvent)99, 1)])
        {
            Send(rig, toDevice, wrong);
        }

        toDriver.ExpectNothing();
        Send(rig, toDevice, Message(0, ConsoleEvent.DeviceReady, 1));
        Assert.Equal([8u, 8u], [toDriver.Collect().Written, toDriver.Collect().Written]);
        toDriver.ExpectNothing();
        Send(rig, toDevice, Message(1, ConsoleEvent.PortReady, 1));
        Assert.Equal([21u, 8u], [toDriver.Collect().Written, toDriver.Collect().Written]);
        Send(rig, toDevice, Message(0, ConsoleEvent.PortReady, 1));
        Send(rig, toDevice, Message(0, ConsoleEvent.PortReady, 1));
        Assert.Equal([8u, 8u], [toDriver.Collect().Written, toDriver.Collect().Written]);
        toDriver.ExpectNothing();

        // the guest was started again
        Send(rig, toDevice, Message(0, ConsoleEvent.DeviceReady, 1));
        Assert.Equal([8u, 8u], [toDriver.Collect().Written, toDriver.Collect().Written]);
        toDriver.ExpectNothing();
        Send(rig, await rig.StartAsync(SecondTransmit), "by the second port");
        Assert.Equal("by the second port", File.ReadAllText(LogPath));
    }

    [Fact]
    public void More_ports_than_there_are_and_names_that_are_none_are_refused()
    {
        ConsolePort[] many = [.. Enumerable.Repeat(new ConsolePort(), ConsoleDevice.MaxPorts + 1)];
        Assert.ThrowsAny<ArgumentException>(() => ConsoleDevice.LayoutFor(new ConsoleDeviceOptions { Ports = many }));
        Assert.ThrowsAny<ArgumentException>(() => ConsoleDevice.LayoutFor(new ConsoleDeviceOptions { Ports = [] }));
        Assert.ThrowsAny<ArgumentException>(() => ConsoleDevice.LayoutFor(
            new ConsoleDeviceOptions { Ports = [new ConsolePort { Name = "ä" }] }));
    }

    [Fact]
    public async Task An_emergency_write_goes_to_the_log_with_and_without_queues()
    {
        using ConsoleLog log = ConsoleLog.Open(LogPath);
        ConsoleDeviceOptions options = new() { Ports = [new ConsolePort { Log = log }] };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        Assert.True(device.WriteConfig(8, [(byte)'a', 0, 0, 0]));
        Assert.True(device.WriteConfig(8, [(byte)'a', 0, 0, 0]));
        await using (QueueRig rig = new(device))
        {
            DrivenQueue queue = await rig.StartAsync(Transmit);
            Send(rig, queue, "-b-");
            Assert.True(device.WriteConfig(8, [(byte)'c', 0, 0, 0]));
            await Eventually.TrueAsync(() => log.SizeBytes == 6, "the character");
            Send(rig, queue, "-d");
        }

        Assert.False(device.WriteConfig(0, [1, 1]));
        Assert.Equal("aa-b-c-d", await File.ReadAllTextAsync(LogPath, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_request_allocates_nothing()
    {
        using ConsoleLog log = ConsoleLog.Open(LogPath);
        ConsoleDeviceOptions options = new() { Ports = [new ConsolePort { Log = log }] };
        using DeviceJournal journal = DeviceJournal.InMemory(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        await using QueueRig rig = new(device);
        DrivenQueue queue = await rig.StartAsync(Transmit);
        DriverBuffer buffer = Text(rig, "a line\n");
        Assert.Equal(0, await rig.AllocatedAsync(() =>
        {
            queue.Ring.TryAdd([buffer], [], 1);
            queue.Submit();
            _ = queue.Collect();
        }));
    }

    private static byte[] Message(uint port, ConsoleEvent what, ushort value)
    {
        byte[] message = new byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(message, port);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(4), (ushort)what);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(6), value);
        return message;
    }

    private static DriverBuffer Text(QueueRig rig, string text)
    {
        DriverBuffer buffer = rig.Memory.Allocate((uint)text.Length);
        Encoding.ASCII.GetBytes(text, buffer.Span);
        return buffer;
    }

    private static void Send(QueueRig rig, DrivenQueue queue, params string[] texts) =>
        Send(queue, [.. texts.Select(text => Text(rig, text))]);

    private static void Send(QueueRig rig, DrivenQueue queue, byte[] message)
    {
        DriverBuffer buffer = rig.Memory.Allocate(8);
        message.CopyTo(buffer.Span);
        Send(queue, [message.Length == 0 ? buffer.Slice(0, 1) : buffer.Slice(0, (uint)message.Length)]);
    }

    private static void Send(DrivenQueue queue, DriverBuffer[] buffers)
    {
        Assert.True(queue.Ring.TryAdd(buffers, [], 9));
        queue.Submit();
        Assert.Equal((9u, 0u), queue.Collect());
    }

    private static string Take(QueueRig rig, DrivenQueue queue, int length)
    {
        StringBuilder text = new();
        DriverBuffer buffer = rig.Memory.Allocate(3000);
        while (text.Length < length)
        {
            Assert.True(queue.Ring.TryAdd([], [buffer], 4));
            queue.Submit();
            (_, uint written) = queue.Collect();
            text.Append(Encoding.ASCII.GetString(buffer.Span[..(int)written]));
        }

        return text.ToString();
    }
}

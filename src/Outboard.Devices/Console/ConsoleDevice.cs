// The console device, virtio-v1.3 "5.3 Console Device": ports by which a guest writes and reads bytes, the first one a
// console.
//
// Output goes to a terminal and to a log. With a state file each byte is in the log exactly once, however often this
// process is killed and started again: a request writes at the position that the journal tells, and takes effect when
// the next position is committed. What a terminal shows is not repeated, but the last lines before a kill may lack.
// Which control messages were asked for and sent is in the journal as well: a guest is told of each port once.
//
// Not here: VIRTIO_CONSOLE_RESIZE (drivers and specification disagree on its fields), ports that come and go. A port
// counts as open whether or not somebody listens at its terminal.
using System.Text;
using Outboard.Devices.Console.Backends;
using Outboard.Linux.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Console;

/// <summary>A virtio console.</summary>
public sealed class ConsoleDevice : VirtioDevice, IDisposable
{
    /// <summary>Most ports: of each, four messages are accounted for in one word.</summary>
    public const int MaxPorts = 16;

    internal const int PositionWord = 0;
    internal const int HasPositionWord = 1;

    private readonly DeviceJournal _journal;
    private readonly ConsoleDeviceOptions _options;
    private readonly bool _isMultiport;
    private readonly Lock _gate = new();
    private readonly AlignedBuffer _emergency = new(1);
    private ConsoleTransmitQueue? _console;
    private ConsoleControlWriter? _controlWriter;

    /// <summary>Makes a console on a journal of <see cref="LayoutFor"/>, which stays the caller's to dispose.</summary>
    /// <exception cref="IOException">A log is not the one that the journal tells of.</exception>
    public ConsoleDevice(DeviceJournal journal, ConsoleDeviceOptions? options = null)
        : this(journal, options ?? new ConsoleDeviceOptions(), 0)
    {
    }

    private ConsoleDevice(DeviceJournal journal, ConsoleDeviceOptions options, int _)
        : base(
            VirtioDeviceId.Console,
            SizesOf(options),
            new ConfigSpace(ConsoleConfig.Bytes, ConsoleConfig.EmergencyWrite))
    {
        ArgumentNullException.ThrowIfNull(journal);
        _journal = journal;
        _options = options;
        _isMultiport = IsMultiport(options);
        Config.Set(ConsoleConfig.Columns, options.Columns);
        Config.Set(ConsoleConfig.Rows, options.Rows);
        Config.Set(ConsoleConfig.PortCount, (ulong)options.Ports.Count);
        for (int port = 0; port < options.Ports.Count; port++)
        {
            FindPosition(options.Ports[port].Log, TransmitLane(port));
        }
    }

    /// <summary>Raised, on a queue's thread, when a log cannot be written, by its name and errno; output waits until it
    /// can. With 0 when it can again.</summary>
    public event Action<string, int>? LogChanged;

    /// <inheritdoc/>
    public override ulong DeviceFeatures =>
        ConsoleFeatures.EmergencyWrite
        | (_options is { Columns: > 0, Rows: > 0 } ? ConsoleFeatures.Size : 0)
        | (_isMultiport ? ConsoleFeatures.Multiport : 0);

    /// <summary>The ports.</summary>
    internal IReadOnlyList<ConsolePort> Ports => _options.Ports;

    /// <summary>Control messages that the driver has asked for, see <see cref="ConsoleControl"/>.</summary>
    internal ulong RequestedMessages => _journal.Lane(ConsoleSpec.ControlToDevice).Read(ConsoleControl.MessagesWord);

    /// <summary>How often a driver has begun.</summary>
    internal ulong DriverCount => _journal.Lane(ConsoleSpec.ControlToDevice).Read(ConsoleControl.DriverWord);

    /// <summary>What the journal of such a console holds.</summary>
    public static JournalLayout LayoutFor(ConsoleDeviceOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return new JournalLayout
        {
            Device = VirtioDeviceId.Console,
            Name = "console 1",
            LaneCount = SizesOf(options).Length,
            EntryCount = options.QueueSize,
            StateWords = 2,
            RedoWords = 2,
            ReplyBytes = ConsoleSpec.MessageBytes + ConsolePort.MaxNameBytes,
        };
    }

    /// <summary>Frees what the device holds. No queue runs.</summary>
    public void Dispose() => _emergency.Dispose();

    internal void OnLogChanged(string name, int error) => LogChanged?.Invoke(name, error);

    /// <summary>The driver asked for control messages.</summary>
    internal void OnMessagesRequested()
    {
        lock (_gate)
        {
            _controlWriter?.Wake();
        }
    }

    internal void Ended(QueueHandler handler)
    {
        lock (_gate)
        {
            _console = _console == handler ? null : _console;
            _controlWriter = _controlWriter == handler ? null : _controlWriter;
        }
    }

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        int queue = context.Queue.Index;
        JournalLane lane = _journal.Lane(queue);
        if (queue is ConsoleSpec.ControlToDevice)
        {
            return new ConsoleControlReader(this, context, lane);
        }

        lock (_gate)
        {
            if (queue is ConsoleSpec.ControlToDriver)
            {
                return _controlWriter = new ConsoleControlWriter(this, context, lane);
            }

            ConsolePort port = _options.Ports[queue < 2 ? 0 : (queue - 2) / 2];
            if (queue % 2 == 0)
            {
                return new ConsoleReceiveQueue(context, port.Terminal);
            }

            ConsoleTransmitQueue transmit = new(this, context, lane, port);
            _console = queue == 1 ? transmit : _console;
            return transmit;
        }
    }

    /// <inheritdoc/>
    /// <remarks>An emergency write, of a kernel that has no queues yet or any more. Lost in a kill, if at all; not
    /// done twice.</remarks>
    protected override void OnConfigWritten()
    {
        byte character = (byte)Config.Get(ConsoleConfig.EmergencyWrite);
        lock (_gate)
        {
            if (_console is { } running)
            {
                running.WriteEmergency(character);
            }
            else
            {
                WriteEmergency(character, TransmitLane(0));
            }
        }
    }

    /// <summary>Writes one character: on the queue's thread, or while it does not run.</summary>
    internal void WriteEmergency(byte character, JournalLane lane)
    {
        _emergency.Span[0] = character;
        ConsolePort port = _options.Ports[0];
        ulong position = lane.Read(PositionWord);
        if (port.Log is { } log && log.Write([_emergency.Segment], (long)position) == 0)
        {
            lane.Restore(PositionWord, position + 1);
        }

        port.Terminal?.Write([_emergency.Segment]);
    }

    private static bool IsMultiport(ConsoleDeviceOptions options) =>
        options.Ports.Count > 1 || options.Ports[0].Name.Length > 0;

    private static int[] SizesOf(ConsoleDeviceOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Ports.Count, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.Ports.Count, MaxPorts, nameof(options));
        foreach (ConsolePort port in options.Ports)
        {
            if (!Ascii.IsValid(port.Name) || port.Name.Length > ConsolePort.MaxNameBytes)
            {
                throw new ArgumentException($"a port's name has up to {ConsolePort.MaxNameBytes} ASCII characters");
            }
        }

        int count = ConsoleSpec.QueueCount(options.Ports.Count, IsMultiport(options));
        return [.. Enumerable.Repeat(options.QueueSize, count)];
    }

    private JournalLane TransmitLane(int port) => _journal.Lane(ConsoleSpec.ReceiveQueue(port) + 1);

    /// <summary>Where output goes on: at the log's end when the state is new, else where the state says.</summary>
    private static void FindPosition(ConsoleLog? log, JournalLane lane)
    {
        if (log is null)
        {
            return;
        }

        long size = log.SizeBytes;
        if (lane.Read(HasPositionWord) == 0)
        {
            lane.Restore(PositionWord, (ulong)size);
            lane.Restore(HasPositionWord, 1);
            return;
        }

        ulong position = lane.Read(PositionWord);
        if ((ulong)size < position)
        {
            throw new IOException(
                $"{log.Name} has {size} bytes, {position} were written: it is not the log of this state");
        }

        log.Cut((long)position);
    }
}

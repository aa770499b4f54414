// What an operator can choose about a console.
using Outboard.Devices.Console.Backends;

namespace Outboard.Devices.Console;

/// <summary>How a console presents itself.</summary>
public sealed record ConsoleDeviceOptions
{
    /// <summary>Columns of the terminal, told to the driver when rows are given as well; 0 tells none.</summary>
    public ushort Columns { get; init; }

    /// <summary>Rows of the terminal.</summary>
    public ushort Rows { get; init; }

    /// <summary>The ports; the first one is a console. More than one, or a name, need VIRTIO_CONSOLE_F_MULTIPORT.
    /// </summary>
    public IReadOnlyList<ConsolePort> Ports { get; init; } = [new ConsolePort()];

    /// <summary>Largest size of each queue.</summary>
    public int QueueSize { get; init; } = 256;
}

/// <summary>A port, and what is at its other side. Terminal and log stay the caller's to dispose.</summary>
public sealed record ConsolePort
{
    /// <summary>Longest <see cref="Name"/>.</summary>
    public const int MaxNameBytes = 40;

    /// <summary>The port's name in the guest, ASCII; empty for none.</summary>
    public string Name { get; init; } = string.Empty;

    /// <summary>Where output is seen and input comes from; null for nowhere.</summary>
    public ConsoleTerminal? Terminal { get; init; }

    /// <summary>Where output is kept; null for nowhere.</summary>
    public ConsoleLog? Log { get; init; }
}

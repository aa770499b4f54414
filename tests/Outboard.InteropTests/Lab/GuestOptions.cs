// GuestOptions.cs - what a test says about the test machine that it wants.
namespace Outboard.InteropTests.Lab;

internal sealed record GuestOptions
{
    /// <summary>The shell script that the machine runs.</summary>
    public required string Script { get; init; }

    /// <summary>Environment variables of the script.</summary>
    public IReadOnlyDictionary<string, string> Variables { get; init; } = new Dictionary<string, string>();

    /// <summary>Files to bring along: the path inside the machine, and the path here.</summary>
    public IReadOnlyDictionary<string, string> Files { get; init; } = new Dictionary<string, string>();

    /// <summary>Further arguments of QEMU: the devices under test.</summary>
    public IReadOnlyList<string> DeviceArguments { get; init; } = [];

    public int Processors { get; init; } = 1;

    public int MemoryMegabytes { get; init; } = 512;

    /// <summary>The machine's type and its options.</summary>
    public string Machine { get; init; } = "q35";

    /// <summary>What is said of the machine's memory besides its size: slots for more of it.</summary>
    public string MemorySlots { get; init; } = "";

    /// <summary>Whether the machine's memory can be mapped by back-ends.</summary>
    public bool SharesMemory { get; init; } = true;

    /// <summary>The file that the shared memory lies in; null for one without a name.</summary>
    public string? MemoryFile { get; init; }

    /// <summary>Whether a reboot starts the machine again, instead of ending QEMU.</summary>
    public bool AllowsReboot { get; init; }

    /// <summary>Whether QEMU listens for commands (<see cref="GuestVm.QmpAsync"/>).</summary>
    public bool OffersQmp { get; init; }

    /// <summary>Arguments added to the kernel's command line.</summary>
    public string KernelArguments { get; init; } = "";

    /// <summary>The address at which a migration arrives; null for a machine that boots.</summary>
    public string? IncomingAddress { get; init; }

    /// <summary>How long the machine may run; generous, because emulation on a loaded machine is slow.</summary>
    public TimeSpan TimeLimit { get; init; } = TimeSpan.FromMinutes(4);

    /// <summary>Reads a script that lies in the Scripts folder beside the tests.</summary>
    public static string ReadScript(string name) =>
        File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Scripts", name));
}

// The options of back-ends whose state outlives their process.
using System.CommandLine;
using Outboard.Cli.Text;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Virtio.Journal;

namespace Outboard.Cli.Serving;

/// <summary>Where a device's state is kept, and how it is opened.</summary>
internal sealed class StateOptions
{
    private readonly ValueOption<string> _path = ValueOption.Text(
        "--state-file", "PATH",
        "Keep the device's state in this file, which is made when it is missing; best on tmpfs, as /dev/shm is. The "
        + "next process with the same file goes on with it, also after kill -9.");

    private readonly ValueOption<int?> _descriptor = ValueOption.Number(
        "--state-fd", "N", "Keep the device's state in the inherited memfd N, which whoever starts this program keeps.",
        0, int.MaxValue);

    /// <summary>The options in the order of --help.</summary>
    public IEnumerable<Option> All => [_path, _descriptor];

    /// <exception cref="CommandLineException">A value is wrong, or both are given.</exception>
    public StateSettings Read(ParseResult result)
    {
        StateSettings settings = new(_path.Read(result), _descriptor.Read(result));
        return settings.Path is null || settings.DescriptorNumber is null
            ? settings
            : throw new CommandLineException(
                $"--state-file={settings.Path} and --state-fd={settings.DescriptorNumber} exclude each other: "
                + "give one of them");
    }
}

/// <summary>Where a device's state is kept. Null means that nothing was said.</summary>
internal sealed record StateSettings(string? Path, int? DescriptorNumber)
{
    /// <summary>Whether it is kept at all.</summary>
    public bool IsGiven => (Path ?? (object?)DescriptorNumber) is not null;

    /// <summary>Opens the state.</summary>
    /// <returns>The journal; one that ends with this process when nothing was said.</returns>
    /// <exception cref="IOException">It is in use, not a state file, or another device's.</exception>
    public DeviceJournal Open(JournalLayout layout)
    {
        try
        {
            if (DescriptorNumber is { } number)
            {
                using FileDescriptor inherited = FileDescriptor.FromInherited(number);
                return DeviceJournal.Open(OwnedFile.Open(inherited, $"descriptor {number}"), layout);
            }

            return Path is null ? DeviceJournal.InMemory(layout) : DeviceJournal.Open(Path, layout);
        }
        catch (IOException error)
        {
            string option = Path is null ? $"--state-fd={DescriptorNumber}" : $"--state-file={Path}";
            throw new IOException($"{option}: {error.Message}", error);
        }
    }
}

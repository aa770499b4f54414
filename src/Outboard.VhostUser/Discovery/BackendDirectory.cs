// Which back-ends are installed, by the rules that management software follows:
//   1. directories from general to specific: /usr/share/qemu/vhost-user, /etc/qemu/vhost-user,
//      $XDG_CONFIG_HOME/qemu/vhost-user (~/.config/qemu/vhost-user when the variable is unset or not absolute);
//   2. a file in a more specific directory replaces the file of the same name in a more general one;
//   3. a file of zero length only hides the one that it replaces;
//   4. what is left is sorted by file name; the first that fits is taken.
// A malformed file replaces like any other: whoever wrote it meant to. It is reported and does not end the search.
using System.Text.Json;

namespace Outboard.VhostUser.Discovery;

/// <summary>A back-end and the file that describes it.</summary>
/// <param name="File">Path of the description file.</param>
/// <param name="Description">What it says.</param>
public sealed record InstalledBackend(string File, BackendDescription Description);

/// <summary>A description file that cannot be used.</summary>
/// <param name="File">Its path.</param>
/// <param name="Reason">What is wrong with it.</param>
public sealed record RejectedDescription(string File, string Reason);

/// <summary>The installed back-ends, in order of priority.</summary>
public sealed class BackendDirectory
{
    /// <summary>Description files are a few hundred bytes; what is larger than this is none, and is not read.</summary>
    private const int MaxFileSizeBytes = 64 * 1024;

    private const string Subfolder = "qemu/vhost-user";

    private readonly List<InstalledBackend> _backends = [];
    private readonly List<RejectedDescription> _rejected = [];

    private BackendDirectory()
    {
    }

    /// <summary>What can be used, the highest priority first.</summary>
    public IReadOnlyList<InstalledBackend> Backends => _backends;

    /// <summary>What was found and cannot be used.</summary>
    public IReadOnlyList<RejectedDescription> Rejected => _rejected;

    /// <summary>The directories to look in, from general to specific.</summary>
    /// <param name="configHome">$XDG_CONFIG_HOME.</param>
    /// <param name="home">$HOME; null when there is none, and then only the system's directories count.</param>
    public static IReadOnlyList<string> SearchPath(string? configHome, string? home)
    {
        List<string> directories = [$"/usr/share/{Subfolder}", $"/etc/{Subfolder}"];
        if (configHome is ['/', ..])
        {
            directories.Add(Path.Combine(configHome, Subfolder));
        }
        else if (!string.IsNullOrEmpty(home))
        {
            directories.Add(Path.Combine(home, ".config", Subfolder));
        }

        return directories;
    }

    /// <summary>The directories of this process's user and environment.</summary>
    public static IReadOnlyList<string> SearchPath() => SearchPath(
        Environment.GetEnvironmentVariable("XDG_CONFIG_HOME"), Environment.GetEnvironmentVariable("HOME"));

    /// <summary>Reads the standard directories.</summary>
    public static BackendDirectory Read() => Read(SearchPath());

    /// <summary>Reads these directories, which are given from general to specific. Absent ones are skipped.</summary>
    public static BackendDirectory Read(IEnumerable<string> directories)
    {
        ArgumentNullException.ThrowIfNull(directories);
        BackendDirectory found = new();
        SortedDictionary<string, string> files = new(StringComparer.Ordinal);
        foreach (string directory in directories)
        {
            foreach (string file in found.FilesOf(directory))
            {
                files[Path.GetFileName(file)] = file;
            }
        }

        foreach (string file in files.Values)
        {
            found.Add(file);
        }

        return found;
    }

    /// <summary>The back-end to use for a kind of device; null when none is installed.</summary>
    public InstalledBackend? Find(string type) =>
        _backends.Find(backend => backend.Description.Type == type);

    private string[] FilesOf(string directory)
    {
        try
        {
            return [.. Directory.EnumerateFiles(directory).Where(IsDescription)];
        }
        catch (DirectoryNotFoundException)
        {
            return [];
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            _rejected.Add(new RejectedDescription(directory, error.Message));
            return [];
        }
    }

    private static bool IsDescription(string file)
    {
        string name = Path.GetFileName(file);
        return name.EndsWith(".json", StringComparison.Ordinal) && !name.StartsWith('.');
    }

    private void Add(string file)
    {
        try
        {
            byte[] bytes = ReadBounded(file);
            if (bytes.Length > 0)
            {
                _backends.Add(new InstalledBackend(file, BackendDescription.Parse(bytes)));
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or JsonException)
        {
            _rejected.Add(new RejectedDescription(file, error.Message));
        }
    }

    private static byte[] ReadBounded(string file)
    {
        // Not File.ReadAllBytes: a file may be endless, as a link to /dev/zero is.
        using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
        byte[] bytes = new byte[MaxFileSizeBytes + 1];
        int count = stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
        return count <= MaxFileSizeBytes
            ? bytes[..count]
            : throw new IOException($"larger than {MaxFileSizeBytes} bytes, so it is no description");
    }
}

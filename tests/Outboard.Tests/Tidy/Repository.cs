// The repository's own files, as the tidy tests read them.
namespace Outboard.Tests.Tidy;

/// <summary>A text file of the repository.</summary>
internal sealed record RepositoryFile(string Path, string Text)
{
    private MaskedSource? _masked;

    /// <summary>The lines, without their ends.</summary>
    internal string[] Lines => Text.Split('\n');

    internal string Name => System.IO.Path.GetFileName(Path);

    internal bool IsSource => Path.EndsWith(".cs", StringComparison.Ordinal);

    /// <summary>The code and the comments, apart.</summary>
    internal MaskedSource Masked => _masked ??= MaskedSource.Of(Text);

    /// <summary>Tables of a specification: their rows may be many and long.</summary>
    internal bool IsSpecTable =>
        Path.Contains("/Spec/", StringComparison.Ordinal)
        || (Path.Contains("/Protocol/", StringComparison.Ordinal)
            && (Name.EndsWith("Table.cs", StringComparison.Ordinal) || Name == "Payloads.cs"));

    internal bool IsUnder(params string[] folders) =>
        folders.Any(folder => Path.StartsWith(folder + "/", StringComparison.Ordinal));

    public override string ToString() => Path;
}

internal static class Repository
{
    private static readonly string[] s_skipped =
        [".git", "bin", "obj", "artifacts", "TestResults", ".vs", ".idea", "BenchmarkDotNet.Artifacts"];

    private static readonly Lazy<string> s_root = new(FindRoot);

    private static readonly Lazy<RepositoryFile[]> s_files = new(() => [.. Read(Root)]);

    /// <summary>The folder with the solution.</summary>
    internal static string Root => s_root.Value;

    /// <summary>All text files, with paths relative to the root.</summary>
    internal static IReadOnlyList<RepositoryFile> Files => s_files.Value;

    /// <summary>The C# files of products, tools, samples and tests.</summary>
    internal static IEnumerable<RepositoryFile> Sources =>
        Files.Where(file => file.IsSource && file.IsUnder("src", "tools", "samples", "tests"));

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Outboard.slnx")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("no folder with Outboard.slnx above the tests");
    }

    private static IEnumerable<RepositoryFile> Read(string folder)
    {
        foreach (string path in Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal))
        {
            if (new FileInfo(path).LinkTarget is null && TryReadText(path, out string text))
            {
                yield return new RepositoryFile(Path.GetRelativePath(Root, path), text);
            }
        }

        foreach (string path in Directory.EnumerateDirectories(folder).Order(StringComparer.Ordinal))
        {
            if (!s_skipped.Contains(Path.GetFileName(path)))
            {
                foreach (RepositoryFile file in Read(path))
                {
                    yield return file;
                }
            }
        }
    }

    private static bool TryReadText(string path, out string text)
    {
        byte[] bytes = File.ReadAllBytes(path);
        bool isText = !bytes.AsSpan(0, Math.Min(bytes.Length, 8192)).Contains((byte)0);
        text = isText ? System.Text.Encoding.UTF8.GetString(bytes) : string.Empty;
        return isText;
    }
}

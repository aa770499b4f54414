// "outboard list-backends": what management software would find, and which one it would take.
using System.CommandLine;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Outboard.Cli.Text;
using Outboard.VhostUser.Discovery;

namespace Outboard.Cli.Discovery;

internal static class ListBackendsCommand
{
    public static Command Create()
    {
        ValueOption<string> type = ValueOption.Text(
            "--type", "TYPE", "Only back-ends of this type, for example block.");
        SwitchOption json = new("--json", "Print a JSON array.");
        Option<string[]> directories = new("--directory")
        {
            HelpName = "DIR",
            Description = "Look here instead of the standard directories; repeat it, from general to specific.",
            Arity = ArgumentArity.OneOrMore,
        };
        Command command = new("list-backends", "List the installed vhost-user back-ends, the highest priority first.")
        {
            type, json, directories,
        };
        command.SetAction(result => Run(
            type.Read(result), json.Read(result), result.GetValue(directories) ?? []));
        return command;
    }

    private static int Run(string? type, bool json, IReadOnlyList<string> directories)
    {
        directories = directories.Count > 0 ? directories : BackendDirectory.SearchPath();
        BackendDirectory found = BackendDirectory.Read(directories);
        foreach (RejectedDescription rejected in found.Rejected)
        {
            ErrorLine.Write($"outboard list-backends: warning: {rejected.File}: skipped: {rejected.Reason}");
        }

        ListedBackend[] listed =
            [.. found.Backends.Where(b => type is null || b.Description.Type == type).Select(ListedBackend.From)];
        if (listed.Length == 0)
        {
            string what = type is null ? "no back-end" : $"no back-end of type {type}";
            ErrorLine.Write($"outboard list-backends: {what} in {string.Join(", ", directories)}");
        }

        using Stream output = Console.OpenStandardOutput();
        output.Write(Encoding.UTF8.GetBytes(json ? ToJson(listed) : ToTable(listed)));
        return 0;
    }

    private static string ToJson(ListedBackend[] backends) =>
        JsonSerializer.Serialize(backends, ListedBackendJson.Default.ListedBackendArray) + "\n";

    private static string ToTable(ListedBackend[] backends)
    {
        if (backends.Length == 0)
        {
            return string.Empty;
        }

        string[][] rows =
        [
            ["TYPE", "BINARY", "FILE", "DESCRIPTION"],
            .. backends.Select(b => (string[])[b.Type, b.Binary, b.File, b.Description]),
        ];
        int[] widths = [.. Enumerable.Range(0, 3).Select(column => rows.Max(row => row[column].Length))];
        StringBuilder table = new();
        foreach (string[] row in rows)
        {
            for (int column = 0; column < widths.Length; column++)
            {
                table.Append(ErrorLine.From(row[column]).PadRight(widths[column] + 2));
            }

            table.Append(ErrorLine.From(row[^1])).Append('\n');
        }

        return table.ToString();
    }
}

/// <summary>One back-end in the JSON output.</summary>
internal sealed record ListedBackend(
    string Type, string Binary, string File, string Description, IReadOnlyList<string>? Tags)
{
    public static ListedBackend From(InstalledBackend backend) => new(
        backend.Description.Type, backend.Description.Binary, backend.File,
        backend.Description.Description, backend.Description.Tags);
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    WriteIndented = true)]
[JsonSerializable(typeof(ListedBackend[]))]
internal sealed partial class ListedBackendJson : JsonSerializerContext;

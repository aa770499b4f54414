// "outboard install-descriptors": tells management software about this program. Everything is written below PREFIX, for
// each back-end (block, console, net, rng):
//
//   PREFIX/share/qemu/vhost-user/50-outboard-block.json   names ...
//   PREFIX/bin/outboard-block                             ... this link, which leads to the program "outboard"
//
// The link is there because a description has no place for arguments: the program is the block back-end when it is
// called by that name. It is relative ("outboard") when the program itself is PREFIX/bin/outboard, so that a package
// can be moved as a whole, and absolute otherwise. Files are replaced when they exist; a file in the place of a link is
// not, and then nothing is written at all.
using System.CommandLine;
using Outboard.Cli.Text;
using Outboard.VhostUser.Discovery;

namespace Outboard.Cli.Discovery;

internal static class InstallDescriptorsCommand
{
    private static readonly (BackendCapabilities Capabilities, string Description)[] s_backends =
    [
        (BackendCapabilities.Block, "Outboard vhost-user block back-end"),
        (BackendCapabilities.Console, "Outboard vhost-user console back-end"),
        (BackendCapabilities.Net, "Outboard vhost-user network back-end"),
        (BackendCapabilities.Rng, "Outboard vhost-user entropy back-end"),
    ];

    public static Command Create()
    {
        ValueOption<string> prefix = ValueOption.Text(
            "--prefix", "DIR", "Where to install: /usr, or any other directory.");
        prefix.Required = true;
        ValueOption<string> binary = ValueOption.Text(
            "--binary", "PATH", "The program 'outboard' that the back-ends' links lead to. [default: this program]");
        Command command = new(
            "install-descriptors",
            "Install the JSON descriptions of the back-ends (block, console, net, rng) in "
            + "PREFIX/share/qemu/vhost-user, and the links that they name (PREFIX/bin/outboard-block and so on).")
        {
            prefix, binary,
        };
        command.SetAction(result => Run(prefix.Read(result)!, binary.Read(result)));
        return command;
    }

    private static int Run(string prefix, string? binary)
    {
        string program = binary is null ? ThisProgram() : Path.GetFullPath(binary);
        if (!File.Exists(program))
        {
            throw new CommandLineException(
                $"--binary={program}: no such file; give the path of the program 'outboard'");
        }

        string root = Path.GetFullPath(prefix);
        string folder = Path.Combine(root, "share", "qemu", "vhost-user");
        string[] links = [.. s_backends.Select(backend => Path.Combine(root, "bin", NameOf(backend.Capabilities)))];
        RequireReplaceable(links);
        using StreamWriter output = new(Console.OpenStandardOutput()) { NewLine = "\n" };
        foreach (((BackendCapabilities capabilities, string description), string link) in s_backends.Zip(links))
        {
            WriteLink(link, program);
            output.WriteLine(link);
            output.WriteLine(WriteDescription(folder, capabilities, new(description, capabilities.Type, link)));
        }

        IReadOnlyList<string> searched = BackendDirectory.SearchPath();
        if (!searched.Contains(folder))
        {
            ErrorLine.Write(
                "outboard install-descriptors: note: management software looks in "
                + $"{string.Join(", ", searched)}; link the files of {folder} from there");
        }

        return 0;
    }

    private static string NameOf(BackendCapabilities capabilities) => $"outboard-{capabilities.Type}";

    private static string ThisProgram()
    {
        // Started as "dotnet outboard.dll", the process is dotnet; the program lies beside the assembly.
        string? process = Environment.ProcessPath;
        if (process is not null && Path.GetFileName(process) != "dotnet")
        {
            return process;
        }

        string beside = Path.Combine(AppContext.BaseDirectory, "outboard");
        return File.Exists(beside)
            ? beside
            : throw new CommandLineException($"--binary: needed, as there is no {beside}; give the program's path");
    }

    private static void RequireReplaceable(string[] links)
    {
        foreach (string link in links)
        {
            FileInfo existing = new(link);
            if (existing.LinkTarget is null && existing.Exists)
            {
                throw new IOException($"{link} exists and is no link: remove it or choose another --prefix");
            }
        }
    }

    private static void WriteLink(string link, string program)
    {
        string folder = Path.GetDirectoryName(link)!;
        Directory.CreateDirectory(folder);
        File.Delete(link);
        bool isSibling = Path.GetDirectoryName(program) == folder;
        File.CreateSymbolicLink(link, isSibling ? Path.GetFileName(program) : program);
    }

    private static string WriteDescription(
        string folder, BackendCapabilities capabilities, BackendDescription description)
    {
        Directory.CreateDirectory(folder);
        string file = Path.Combine(folder, $"50-{NameOf(capabilities)}.json");

        // Written beside and renamed, so that a reader never sees half of it.
        string temporary = file + ".new";
        File.WriteAllText(temporary, description.ToJson());
        File.Move(temporary, file, overwrite: true);
        return file;
    }
}

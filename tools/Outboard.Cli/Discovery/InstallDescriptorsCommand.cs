// "outboard install-descriptors": tells management software about this program. Everything is written below PREFIX:
//
//   PREFIX/share/qemu/vhost-user/50-outboard-block.json   names ...
//   PREFIX/bin/outboard-block                             ... this link, which leads to the program "outboard"
//
// The link is there because a description has no place for arguments: the program is the block back-end when it is
// called by that name. It is relative ("outboard") when the program itself is PREFIX/bin/outboard, so that a package
// can be moved as a whole, and absolute otherwise. Both files are replaced when they exist; a file in the place of the
// link is not.
using System.CommandLine;
using Outboard.Cli.Text;
using Outboard.VhostUser.Discovery;

namespace Outboard.Cli.Discovery;

internal static class InstallDescriptorsCommand
{
    private const string LinkName = "outboard-block";
    private const string FileName = "50-outboard-block.json";

    public static Command Create()
    {
        ValueOption<string> prefix = ValueOption.Text(
            "--prefix", "DIR", "Where to install: /usr, or any other directory.");
        prefix.Required = true;
        ValueOption<string> binary = ValueOption.Text(
            "--binary", "PATH", "The program 'outboard' that the back-end's link leads to. [default: this program]");
        Command command = new(
            "install-descriptors",
            "Install the JSON description of the block back-end in PREFIX/share/qemu/vhost-user, "
            + "and the link PREFIX/bin/outboard-block that it names.")
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
        string link = Path.Combine(root, "bin", LinkName);
        string folder = Path.Combine(root, "share", "qemu", "vhost-user");
        WriteLink(link, program);
        string file = WriteDescription(folder, link);

        using StreamWriter output = new(Console.OpenStandardOutput()) { NewLine = "\n" };
        output.WriteLine(link);
        output.WriteLine(file);
        IReadOnlyList<string> searched = BackendDirectory.SearchPath();
        if (!searched.Contains(folder))
        {
            ErrorLine.Write(
                "outboard install-descriptors: note: management software looks in "
                + $"{string.Join(", ", searched)}; link {file} from there");
        }

        return 0;
    }

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

    private static void WriteLink(string link, string program)
    {
        string folder = Path.GetDirectoryName(link)!;
        Directory.CreateDirectory(folder);
        FileInfo existing = new(link);
        if (existing.LinkTarget is not null)
        {
            existing.Delete();
        }
        else if (existing.Exists)
        {
            throw new IOException($"{link} exists and is no link: remove it or choose another --prefix");
        }

        bool isSibling = Path.GetDirectoryName(program) == folder;
        File.CreateSymbolicLink(link, isSibling ? Path.GetFileName(program) : program);
    }

    private static string WriteDescription(string folder, string link)
    {
        Directory.CreateDirectory(folder);
        string file = Path.Combine(folder, FileName);
        BackendDescription description = new(
            "Outboard vhost-user block back-end", BackendCapabilities.Block.Type, link);

        // Written beside and renamed, so that a reader never sees half of it.
        string temporary = file + ".new";
        File.WriteAllText(temporary, description.ToJson());
        File.Move(temporary, file, overwrite: true);
        return file;
    }
}

// One call of the program: under which name, with which arguments.
//
// Called through a link named "outboard-block" (argv[0], as the link's name never reaches Environment.ProcessPath) the
// program is that back-end, so that a description file can name it: it has a "binary" and no arguments.
// --print-capabilities is looked for before anything is parsed, since it wins over everything, errors included.
using System.CommandLine;
using System.CommandLine.Invocation;
using Outboard.Cli.Text;
using Outboard.VhostUser.Discovery;

namespace Outboard.Cli;

/// <summary>A call of the program.</summary>
/// <param name="ProgramName">The name it was called by, for messages.</param>
/// <param name="Arguments">The arguments, a back-end's name first when the program's own name implied one.</param>
internal sealed record Invocation(string ProgramName, string[] Arguments)
{
    private const string LinkPrefix = "outboard-";
    private const int Failed = 1;
    private const int WrongCommandLine = 2;
    private const int Broken = 70;

    private static readonly BackendCapabilities[] s_backends =
    [
        BackendCapabilities.Block, BackendCapabilities.Net, BackendCapabilities.Rng,
        BackendCapabilities.Console, new("counter", []), new("register", []),
    ];

    /// <summary>The name of a back-end in its log: the link's, or the program's and the command's.</summary>
    public string BackendName => IsLink ? ProgramName : $"{ProgramName} {Arguments.FirstOrDefault()}";

    private bool IsLink => ProgramName.StartsWith(LinkPrefix, StringComparison.Ordinal);

    /// <summary>Reads the name from the kernel, and takes the arguments.</summary>
    public static Invocation Read(string[] arguments) => From(CalledAs(), arguments);

    /// <summary>What a call by this name with these arguments means.</summary>
    public static Invocation From(string calledAs, string[] arguments)
    {
        string name = Path.GetFileName(calledAs);
        foreach (BackendCapabilities backend in s_backends)
        {
            if (name == LinkPrefix + backend.Type)
            {
                return new Invocation(name, arguments is ["--version"] ? arguments : [backend.Type, .. arguments]);
            }
        }

        return new Invocation("outboard", arguments);
    }

    /// <summary>Carries the call out.</summary>
    /// <returns>The exit status.</returns>
    public int Run()
    {
        try
        {
            return AskedCapabilities() is { } capabilities ? Print(capabilities) : RunCommand();
        }
        catch (CommandLineException error)
        {
            return Fail(error.Message, WrongCommandLine);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return Fail(error.Message, Failed);
        }
#pragma warning disable CA1031 // The outermost boundary: a bug ends in one line, too, and in a status that tells it.
        catch (Exception error)
#pragma warning restore CA1031
        {
            bool wantsAll = Arguments.Contains("--verbose");
            string what = wantsAll ? $"{error}" : $"{error.GetType().Name}: {error.Message} (more with --verbose)";
            return Fail($"this is a bug of outboard: {what}", Broken);
        }
    }

    private static int Print(BackendCapabilities capabilities)
    {
        using Stream output = Console.OpenStandardOutput();
        output.Write([.. System.Text.Encoding.UTF8.GetBytes(capabilities.ToJson()), (byte)'\n']);
        return 0;
    }

    private static string CalledAs()
    {
        byte[] line = File.ReadAllBytes("/proc/self/cmdline");
        int end = line.AsSpan().IndexOf((byte)0);
        return System.Text.Encoding.UTF8.GetString(line, 0, end < 0 ? line.Length : end);
    }

    private BackendCapabilities? AskedCapabilities()
    {
        if (!Arguments.Contains("--print-capabilities"))
        {
            return null;
        }

        string? command = Array.Find(Arguments, argument => !argument.StartsWith('-'));
        return Array.Find(s_backends, backend => backend.Type == command);
    }

    private int RunCommand()
    {
        RootCommand root = CommandTree.Create(this);

        // "@file" would be replaced by the file's content, and "-ab" be read as "-a -b": neither is wanted.
        ParserConfiguration parsing = new() { EnablePosixBundling = false, ResponseFileTokenReplacer = null };
        ParseResult result = root.Parse(Arguments, parsing);
        if (result.Action is ParseErrorAction)
        {
            throw new CommandLineException($"{Describe(result)} (see '{HelpFor(result.CommandResult.Command)}')");
        }

        // Commands end by themselves on SIGTERM and SIGINT, and errors are printed above.
        return result.Invoke(new InvocationConfiguration
        {
            EnableDefaultExceptionHandler = false,
            ProcessTerminationTimeout = null,
        });
    }

    private static string Describe(ParseResult result) => result.UnmatchedTokens switch
    {
        [['-', ..] option, ..] => $"{option}: no such option",
        [var word, ..] when result.CommandResult.Command.Subcommands.Count > 0 => $"{word}: no such command",
        [var word, ..] => $"{word}: neither an option nor a value of one",
        _ => result.Errors[0].Message,
    };

    private string HelpFor(Command command)
    {
        if (IsLink)
        {
            return $"{ProgramName} --help";
        }

        string path = "--help";
        for (Command? next = command; next is not null and not RootCommand;)
        {
            path = $"{next.Name} {path}";
            next = next.Parents.OfType<Command>().FirstOrDefault();
        }

        return $"{ProgramName} {path}";
    }

    private int Fail(string reason, int status)
    {
        ErrorLine.Write($"{ProgramName}: {reason}");
        return status;
    }
}

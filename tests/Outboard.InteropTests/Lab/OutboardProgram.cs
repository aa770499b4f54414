// OutboardProgram.cs - where the program "outboard" is that the tests start: the one built with these tests, in the
// same configuration, or the one that OUTBOARD_PROGRAM names.
namespace Outboard.InteropTests.Lab;

internal static class OutboardProgram
{
    public static string Path { get; } = Find();

    private static string Find()
    {
        string? named = Environment.GetEnvironmentVariable("OUTBOARD_PROGRAM");
        if (named is not null)
        {
            return named;
        }

        // .../tests/Outboard.InteropTests/bin/CONFIGURATION/FRAMEWORK
        DirectoryInfo framework = new(System.IO.Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        string configuration = framework.Parent?.Name ?? "Debug";
        string path = System.IO.Path.Combine(
            Peers.RepositoryFolder, "tools", "Outboard.Cli", "bin", configuration, framework.Name, "outboard.dll");
        return File.Exists(path) ? path : throw new LabException($"{path} is missing; build tools/Outboard.Cli first");
    }
}

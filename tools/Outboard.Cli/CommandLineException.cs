// What the caller of this program got wrong.
namespace Outboard.Cli;

/// <summary>The command line cannot be carried out. The message names the option, the value and the remedy.</summary>
internal sealed class CommandLineException(string message) : Exception(message);

// A peer's mistake: which command, which field, which value, and the error number that answers it.
using Outboard.Linux;

namespace Outboard.VfioUser.Protocol;

/// <summary>A peer broke the protocol. The command is refused, or the connection ends.</summary>
public sealed class ProtocolException : Exception
{
    /// <summary>Describes the mistake.</summary>
    /// <param name="command">The command's name, as the specification spells it.</param>
    /// <param name="field">The offending field.</param>
    /// <param name="problem">Its value, and what is wrong with it.</param>
    /// <param name="errno">The error number of the reply.</param>
    public ProtocolException(string command, string field, string problem, int errno = Errno.InvalidArgument)
        : base($"{command}: {field}: {problem}")
    {
        Command = command;
        Field = field;
        ErrorNumber = errno;
    }

    /// <summary>The command's name.</summary>
    public string Command { get; }

    /// <summary>The offending field.</summary>
    public string Field { get; }

    /// <summary>The error number of the reply.</summary>
    public int ErrorNumber { get; }

    /// <summary>Whether the connection ends, after the reply if there can be one.</summary>
    public bool IsFatal { get; init; }
}

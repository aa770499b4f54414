// A server that refuses a command.
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>The server refused a command.</summary>
public sealed class VfioUserException(VfioUserCommand command, int errno)
    : IOException($"{CommandTable.Find(command)?.Name ?? $"{command}"}: the server refuses, errno {errno}")
{
    /// <summary>The command.</summary>
    public VfioUserCommand Command { get; } = command;

    /// <summary>The server's error number; 0 when it gave none.</summary>
    public int Errno { get; } = errno;
}

// ListeningSockets.cs - tells whether a Unix socket is ready for connections, without connecting to it: several
// back-ends serve one client only and would take the probe for that client.
namespace Outboard.InteropTests.Lab;

internal static class ListeningSockets
{
    // "Num: RefCount Protocol Flags Type State Inode Path"; the flag is __SO_ACCEPTCON of the kernel
    private const int FlagsColumn = 3;
    private const int PathColumn = 7;
    private const string AcceptsConnections = "00010000";

    /// <param name="path">The socket's path.</param>
    /// <param name="processId">Whose network namespace to look at; null for this one's.</param>
    public static bool Contains(string path, int? processId = null)
    {
        foreach (string line in Read(processId))
        {
            string[] columns = line.Split(' ', PathColumn + 1, StringSplitOptions.RemoveEmptyEntries);
            if (columns.Length > PathColumn && columns[PathColumn] == path &&
                columns[FlagsColumn] == AcceptsConnections)
            {
                return true;
            }
        }

        return false;
    }

    private static IEnumerable<string> Read(int? processId)
    {
        try
        {
            return File.ReadAllLines(processId is null ? "/proc/net/unix" : $"/proc/{processId}/net/unix");
        }
        catch (IOException) when (processId is not null)
        {
            // the process has ended
            return [];
        }
    }
}

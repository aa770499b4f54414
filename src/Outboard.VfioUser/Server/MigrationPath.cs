// The migration state machine: which single steps there are, and the way from one state to another. The way is the
// shortest that does not lead through a state in which data is read.
using Outboard.Pci;

namespace Outboard.VfioUser.Server;

/// <summary>Ways between migration states.</summary>
internal static class MigrationPath
{
    private const MigrationState Stop = MigrationState.Stop;
    private const MigrationState Running = MigrationState.Running;
    private const MigrationState StopCopy = MigrationState.StopCopy;
    private const MigrationState Resuming = MigrationState.Resuming;
    private const MigrationState PreCopy = MigrationState.PreCopy;

    /// <summary>The states to enter, in order; empty when nothing is to be done, null when there is no way.</summary>
    internal static MigrationState[]? Find(MigrationState from, MigrationState to, bool hasPreCopy)
    {
        if (!hasPreCopy && to == PreCopy)
        {
            return null;
        }

        return (from, to) switch
        {
            (Stop or Running or StopCopy or Resuming or PreCopy, _) when from == to => [],
            (Stop, Running) => [Running],
            (Stop, StopCopy) => [StopCopy],
            (Stop, Resuming) => [Resuming],
            (Stop, PreCopy) => [Running, PreCopy],
            (Running, Stop) => [Stop],
            (Running, StopCopy) => [Stop, StopCopy],
            (Running, Resuming) => [Stop, Resuming],
            (Running, PreCopy) => [PreCopy],
            (StopCopy, Stop) => [Stop],
            (StopCopy, Running) => [Stop, Running],
            (StopCopy, Resuming) => [Stop, Resuming],
            (Resuming, Stop) => [Stop],
            (Resuming, Running) => [Stop, Running],
            (Resuming, StopCopy) => [Stop, StopCopy],
            (Resuming, PreCopy) => [Stop, Running, PreCopy],
            (PreCopy, Stop) => [Running, Stop],
            (PreCopy, Running) => [Running],
            (PreCopy, StopCopy) => [StopCopy],
            (PreCopy, Resuming) => [Running, Stop, Resuming],
            _ => null,
        };
    }
}

// What a thread of the data plane offers to those who do file I/O on it, whatever kind of queue they serve.
using Outboard.Linux.Files;

namespace Outboard.Virtio;

/// <summary>A place on a data plane's thread where file operations are started and come back.</summary>
public abstract class IoContext
{
    /// <summary>Asynchronous file I/O of this thread. Created at the first use.</summary>
    public abstract FileIoEngine Files { get; }

    /// <summary>
    /// The upper 32 bits of every tag that the user of this context gives to <see cref="Files"/>; the lower ones are
    /// its own and come back with the completion.
    /// </summary>
    public ulong TagPrefix { get; protected init; }

    /// <summary>Runs an action on the thread, soon; from any thread. Not for the way of a request.</summary>
    /// <remarks>
    /// What it completes is published. When the queue has been stopped meanwhile it is not run.
    /// </remarks>
    public abstract void Post(Action action);
}

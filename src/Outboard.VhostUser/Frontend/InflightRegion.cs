// An in-flight region as a front-end keeps it, while back-ends come and go.
using Outboard.Memory;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

/// <summary>A region that a back-end made, and that outlives it.</summary>
public sealed class InflightRegion(InflightPayload layout, SharedMemory memory) : IDisposable
{
    /// <summary>What the back-end said of it.</summary>
    public InflightPayload Layout { get; } = layout;

    /// <summary>The memory.</summary>
    public SharedMemory Memory { get; } = memory;

    /// <inheritdoc/>
    public void Dispose() => Memory.Dispose();
}

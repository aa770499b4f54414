// Our own bugs. Nothing a guest or a peer sends may lead here; what does, ends the session, loudly.
namespace Outboard.Virtio;

/// <summary>This program broke one of its own rules.</summary>
public sealed class InvariantException(string message) : Exception(message);

// A device that refuses an access or a reset, which a transport with answers passes on. For tests of drivers and of
// transports; a guest sees what its machine makes of it.
namespace Outboard.Pci;

/// <summary>The device refuses. Thrown by overrides of <see cref="PciFunction"/>, and carried by the reply.</summary>
public sealed class PciAccessException(int errno) : Exception($"the device refuses: errno {errno}")
{
    /// <summary>The error number.</summary>
    public int Errno { get; } = errno;
}

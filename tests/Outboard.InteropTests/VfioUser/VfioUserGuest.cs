// VfioUserGuest.cs - how QEMU is told about a vfio-user server.
namespace Outboard.InteropTests.VfioUser;

internal static class VfioUserGuest
{
    /// <summary>QEMU takes this device in JSON only, since the socket is an object.</summary>
    public static string[] Device(string socketPath) =>
    [
        "-device",
        $$$"""{"driver":"vfio-user-pci","socket":{"type":"unix","path":"{{{socketPath}}}"}}""",
    ];
}

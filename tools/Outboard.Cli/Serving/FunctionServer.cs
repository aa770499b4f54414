// Serves a PCI function until asked to end. As DeviceServer: a client or a device that is stuck does not hold the
// program for longer than the grace period.
using Outboard.Cli.Text;
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.VfioUser.Server;

namespace Outboard.Cli.Serving;

internal static class FunctionServer
{
    /// <summary>The option of a command that serves a PCI function and nothing else.</summary>
    public static ValueOption<string> CreateOption() => ValueOption.Text(
        ServedSocket.VfioUserOption, "PATH", "Listen for vfio-user clients on a UNIX socket at PATH.");

    /// <summary>The option of whatever may be served as a PCI function, for machines that unplug it.</summary>
    public static SwitchOption CreateNoMsixOption() => new(
        "--no-msix",
        "As a PCI device: no MSI-X. Needed to unplug it from QEMU 11.1, which ends itself when a vfio-user device with "
        + "MSI-X is unplugged. Interrupts cost more.");

    /// <summary>Binds the socket that the option names.</summary>
    /// <exception cref="CommandLineException">It is not given.</exception>
    /// <exception cref="IOException">It cannot be bound.</exception>
    public static UnixListener Bind(string? path) => ServedSocket.Bind(
        ServedSocket.VfioUserOption,
        path ?? throw new CommandLineException($"no socket: give {ServedSocket.VfioUserOption}=PATH"));

    /// <summary>Serves.</summary>
    /// <returns>False when it was given up with requests in flight.</returns>
    public static bool Serve(
        PciFunction function, UnixListener listener, VfioUserServerOptions options, CancellationToken ending) =>
        GracePeriod.Wait(
            VfioUserServer.ServeAsync(function, listener, options, ending),
            options.Logger, "the device is still at work", ending);
}

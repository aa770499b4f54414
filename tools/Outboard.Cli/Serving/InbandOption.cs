// The option by which every back-end offers notifications as messages.
using System.CommandLine;
using Outboard.Cli.Text;
using Outboard.VhostUser.Protocol;

namespace Outboard.Cli.Serving;

internal static class InbandOption
{
    public static SwitchOption Create() => new(
        "--inband-notifications",
        "Offer kicks and calls as messages, for front-ends that simulate time (User Mode Linux). QEMU accepts them and "
        + "then never kicks: not for QEMU.");

    /// <summary>The protocol features to offer beyond the usual ones.</summary>
    public static ProtocolFeatures Features(bool offersInband) =>
        offersInband ? ProtocolFeatures.InbandNotifications : ProtocolFeatures.None;
}

// The option by which every back-end offers to return requests in order.
using Outboard.Cli.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Serving;

internal static class InOrderOption
{
    public static SwitchOption Create() => new(
        "--in-order",
        "Offer VIRTIO_F_IN_ORDER: requests are returned in the order they came. Cheap for a network card; on a disk "
        + "one slow request holds back all behind it, so only on request.");

    /// <summary>The features to offer beyond the usual ones.</summary>
    public static ulong Features(bool isInOrder) => isInOrder ? VirtioFeatures.InOrder : 0;
}

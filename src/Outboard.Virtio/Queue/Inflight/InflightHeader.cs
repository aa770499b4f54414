// What both layouts of the in-flight region have in common: size, version and number of descriptors are checked before
// anything of it is used.
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Inflight;

internal static class InflightHeader
{
    /// <summary>Checks a queue's region.</summary>
    /// <param name="window">The region.</param>
    /// <param name="size">Queue size.</param>
    /// <param name="bytes">Bytes that the layout needs for it.</param>
    /// <returns>Whether it is fresh; a region in use has this version and size.</returns>
    /// <exception cref="VringSetupException">It is too small or does not belong to this ring.</exception>
    internal static bool IsFresh(MemoryWindow window, int size, uint bytes)
    {
        if (window.Length < bytes)
        {
            throw new VringSetupException(
                "inflight", $"a region of {window.Length} bytes is too small for {size} descriptors");
        }

        ushort version = window.Read<ushort>(InflightSpec.VersionOffset);
        if (version == 0)
        {
            return true;
        }

        ushort descriptors = window.Read<ushort>(InflightSpec.DescriptorCountOffset);
        return version == InflightSpec.Version && descriptors == size
            ? false
            : throw new VringSetupException(
                "inflight",
                $"version {version} for {descriptors} descriptors; version {InflightSpec.Version} for {size} is due");
    }
}

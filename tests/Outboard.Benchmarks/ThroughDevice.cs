// A disk that is reached through a virtio-vhost-user device and its driver without any machine between, for
// eng/bench/appliance.sh: what is left of an appliance when nothing in it is emulated.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;

namespace Outboard.Benchmarks;

internal static class ThroughDevice
{
    internal const string Name = "through-device";

    /// <summary>Serves until the program is ended.</summary>
    /// <param name="socket">Where the front-end comes.</param>
    /// <param name="image">The disk's image; empty for a disk that keeps nothing.</param>
    internal static async Task ServeAsync(string socket, string image)
    {
        using Disk disk = image.Length == 0 ? new NullDisk(1L << 30) : FileDisk.Open(image);
        using VirtioVhostUserDevice device = new(new VirtioVhostUserOptions { WindowBytes = 1UL << 30, Rings = 1 });
        using ChannelSource frontends = ChannelSource.Listen(socket);
        Task serving = device.ServeAsync(frontends);
        using VirtioVhostUserSource source = new(await InProcessAccess.StartAsync(device));
        await VhostUserBackend.ServeAsync(new BlockDevice(disk), source, new VhostUserBackendOptions());
        await serving;
    }
}

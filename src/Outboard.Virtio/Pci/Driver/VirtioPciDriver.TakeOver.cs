// A device whose driver was killed. The kernel takes a function that nobody holds off the bus, and a machine may stop
// the device then (QEMU clears DRIVER_OK); nobody resets it, so it goes on where it was as soon as it is told to.
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci.Driver;

public sealed partial class VirtioPciDriver
{
    /// <summary>
    /// Starts a device that was stopped, and not reset, once more: with the features that its driver had agreed upon,
    /// on queues in which nothing is. They are good for nothing: the device may have been elsewhere in them, and call
    /// them broken. Only before the reset.
    /// </summary>
    /// <param name="memory">Where the queues are laid out; mapped already.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <returns>False for a device in any other state, which is left as it is.</returns>
    public async Task<bool> TryGoOnAsync(DriverMemory memory, CancellationToken cancellation = default)
    {
        if (await GetStatusAsync(cancellation).ConfigureAwait(false) != Negotiated)
        {
            return false;
        }

        ulong count = await ReadAsync(VirtioPciRegister.QueueCount, 2, cancellation).ConfigureAwait(false);
        for (ulong index = 0; index < count; index++)
        {
            await WriteAsync(VirtioPciRegister.QueueSelect, index, 2, cancellation).ConfigureAwait(false);
            ulong size = await ReadAsync(VirtioPciRegister.QueueSize, 2, cancellation).ConfigureAwait(false);
            if (size is > 0 and <= SplitRing.MaxSize && ulong.IsPow2(size)
                && await ReadAsync(VirtioPciRegister.QueueEnable, 2, cancellation).ConfigureAwait(false) == 1)
            {
                await EnableAsync(DriverQueue.Create((int)index, (int)size, memory, 0), cancellation)
                    .ConfigureAwait(false);
            }
        }

        await RunAsync(cancellation).ConfigureAwait(false);
        return true;
    }
}

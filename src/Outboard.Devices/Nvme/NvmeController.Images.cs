// Images have one user at a time. A controller takes its disks when a driver enables it, or when it goes on with a
// state that has come; a disk that was locked when it was opened is taken already. It lets go of them, flushed, when
// its own state is given away, and takes them again should the guest go on here. As virtio devices do:
// VirtioDevice.TakeOverAsync and HandOver.
//
// Another process may take a moment to let go: the controller is Starting meanwhile, and not ready. Who does not get
// the disks at all fails, and may be enabled again.
namespace Outboard.Devices.Nvme;

public sealed partial class NvmeController
{
    /// <summary>Whether the state was given away: the guest goes on elsewhere, unless it is resumed here.</summary>
    private bool _isHandedOver;

    /// <summary>Takes all disks, or none.</summary>
    /// <exception cref="IOException">Another process has one.</exception>
    private async Task AcquireDisksAsync()
    {
        try
        {
            foreach (NvmeNamespace place in Namespaces)
            {
                await place.Disk.AcquireAsync().ConfigureAwait(false);
            }
        }
        catch
        {
            ReleaseDisks();
            throw;
        }
    }

    /// <summary>Takes all disks for a driver that knows nothing yet: they may have grown elsewhere.</summary>
    private async Task AcquireForDriverAsync()
    {
        await AcquireDisksAsync().ConfigureAwait(false);
        _ = RefreshSizes();
    }

    private void ReleaseDisks()
    {
        foreach (NvmeNamespace place in Namespaces)
        {
            place.Disk.Release();
        }
    }

    /// <summary>The state was given away: the disks are somebody else's.</summary>
    private void HandOver()
    {
        _isHandedOver = true;
        ReleaseDisks();
    }

    /// <summary>Starts once the disks are there, if the driver still wants that.</summary>
    private async Task StartLaterAsync(Task acquiring)
    {
        string? problem = null;
        try
        {
            await acquiring.ConfigureAwait(false);
        }
        catch (IOException error)
        {
            problem = error.Message;
        }

        lock (_lifeLock)
        {
            _life = Life.Disabled;
            if (_isWanted)
            {
                _isWanted = false;
                Start(problem);
            }
        }
    }
}

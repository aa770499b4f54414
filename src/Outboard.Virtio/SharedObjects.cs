// Objects that several devices share by a UUID: buffers that one device exports and another one uses (VIRTIO's exported
// objects; a GPU's resources, a video decoder's frames). No transport has a name here.
using Outboard.Memory;

namespace Outboard.Virtio;

/// <summary>A device that exports objects, or uses those of others.</summary>
public interface ISharedObjectDevice
{
    /// <summary>
    /// Finds an object that this device exports, on the transport's control loop. Must not wait for the directory.
    /// </summary>
    /// <returns>Another handle of its memory, which the caller disposes; null when it exports none of that
    /// name.</returns>
    SharedMemory? Export(Guid name);

    /// <summary>Gives the directory that all devices of the machine share; null when it is there no more.</summary>
    void UseDirectory(ISharedObjectDirectory? directory);
}

/// <summary>Where objects are announced and found. May be called from any thread but the control loop's.</summary>
public interface ISharedObjectDirectory
{
    /// <summary>Announces an object of the caller's.</summary>
    /// <returns>False when the name is taken, or the directory refuses it.</returns>
    Task<bool> AddAsync(Guid name);

    /// <summary>Takes an object of the caller's back.</summary>
    /// <returns>False when the caller has announced none of that name.</returns>
    Task<bool> RemoveAsync(Guid name);

    /// <summary>Finds an object, whoever exports it.</summary>
    /// <returns>Its memory, which the caller disposes; null when there is none.</returns>
    Task<SharedMemory?> LookUpAsync(Guid name);
}

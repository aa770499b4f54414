// Requests that a back-end sends on its own channel, vhost-user "Back-end message types".
namespace Outboard.VhostUser.Protocol;

/// <summary>A request from the back-end to the front-end.</summary>
public enum BackendRequest : uint
{
    /// <summary>VHOST_USER_BACKEND_IOTLB_MSG.</summary>
    IotlbMsg = 1,

    /// <summary>VHOST_USER_BACKEND_CONFIG_CHANGE_MSG.</summary>
    ConfigChangeMsg = 2,

    /// <summary>VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG.</summary>
    VringHostNotifierMsg = 3,

    /// <summary>VHOST_USER_BACKEND_VRING_CALL.</summary>
    VringCall = 4,

    /// <summary>VHOST_USER_BACKEND_VRING_ERR.</summary>
    VringErr = 5,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_ADD.</summary>
    SharedObjectAdd = 6,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE.</summary>
    SharedObjectRemove = 7,

    /// <summary>VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP.</summary>
    SharedObjectLookup = 8,

    /// <summary>VHOST_USER_BACKEND_SHMEM_MAP.</summary>
    ShmemMap = 9,

    /// <summary>VHOST_USER_BACKEND_SHMEM_UNMAP.</summary>
    ShmemUnmap = 10,
}

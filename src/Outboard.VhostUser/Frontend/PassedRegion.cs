// Guest memory of somebody else's, as a front-end hands it on: regions that lie side by side, in the guest and in
// their object, are one, since back-ends take few, and a machine's memory comes in many pieces (holes, shadow ROMs).
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.VhostUser.Frontend;

/// <summary>A piece of guest memory that is handed on.</summary>
/// <param name="GuestAddress">Guest physical address of the first byte.</param>
/// <param name="SizeBytes">Bytes.</param>
/// <param name="Offset">Where it begins in the object.</param>
/// <param name="Identity">Which object that is.</param>
internal sealed record PassedRegion(ulong GuestAddress, ulong SizeBytes, ulong Offset, FileIdentity Identity)
{
    /// <summary>
    /// What is added to guest addresses where the protocol wants addresses of the front-end: any that are distinct will
    /// do, but 0, which programs take for none.
    /// </summary>
    internal const ulong UserShift = 1UL << 44;

    /// <summary>Guest memory ends here at the latest, so that the sum above fits.</summary>
    private const ulong End = ulong.MaxValue - UserShift;

    /// <summary>The object. Alive as long as the snapshot that it is from.</summary>
    internal required SharedMemory Memory { get; init; }

    /// <summary>The regions of a snapshot, joined, sorted by address.</summary>
    /// <param name="memory">The snapshot; its regions know what they were mapped from.</param>
    /// <param name="limit">Most regions; beyond that the smallest are left out.</param>
    /// <param name="leftOut">How many were.</param>
    internal static PassedRegion[] Of(GuestMemory memory, int limit, out int leftOut)
    {
        List<PassedRegion> joined = [];
        foreach (MemoryRegion region in memory.Regions)
        {
            if (region.Source is not { } source || region.GuestAddress > End
                || region.SizeBytes > End - region.GuestAddress)
            {
                continue;
            }

            FileIdentity identity = source.Memory.Identity;
            if (joined is [.., var last] && last.Identity == identity
                && last.GuestAddress + last.SizeBytes == region.GuestAddress
                && last.Offset + last.SizeBytes == source.Offset)
            {
                joined[^1] = last with { SizeBytes = last.SizeBytes + region.SizeBytes };
            }
            else
            {
                joined.Add(new PassedRegion(region.GuestAddress, region.SizeBytes, source.Offset, identity)
                {
                    Memory = source.Memory,
                });
            }
        }

        leftOut = Math.Max(0, joined.Count - limit);
        return [.. joined.OrderByDescending(region => region.SizeBytes).Take(limit)
            .OrderBy(region => region.GuestAddress)];
    }

    /// <summary>Whether the same bytes are at the same place.</summary>
    internal bool IsSame(PassedRegion other) =>
        (GuestAddress, SizeBytes, Offset, Identity)
        == (other.GuestAddress, other.SizeBytes, other.Offset, other.Identity);
}

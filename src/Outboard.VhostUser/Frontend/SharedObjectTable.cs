// The directory of objects that the devices of one machine share: which back-end announced which name. An object itself
// stays with its owner, who is asked for it each time.
using System.Collections.Concurrent;
using Outboard.Memory;

namespace Outboard.VhostUser.Frontend;

/// <summary>
/// Objects by name. One table serves all front-ends of a machine; members may be called from any thread.
/// </summary>
public sealed class SharedObjectTable
{
    /// <summary>Names that one owner may announce: buffers of many screens, but no way to fill our memory.</summary>
    public const int MaxNamesOfOwner = 4096;

    private readonly ConcurrentDictionary<Guid, (object Owner, Func<Task<SharedMemory?>> Find)> _objects = new();

    /// <summary>Announces an object.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="owner">Who may take it back.</param>
    /// <param name="find">Gives another handle of it, or null when it is gone.</param>
    /// <returns>False when the name is taken, or the owner has too many.</returns>
    public bool Add(Guid name, object owner, Func<Task<SharedMemory?>> find) =>
        _objects.Values.Count(entry => ReferenceEquals(entry.Owner, owner)) < MaxNamesOfOwner
        && _objects.TryAdd(name, (owner, find));

    /// <summary>Takes an object back.</summary>
    /// <returns>False when this owner has none of that name.</returns>
    public bool Remove(Guid name, object owner) =>
        _objects.TryGetValue(name, out (object Owner, Func<Task<SharedMemory?>> Find) entry)
        && ReferenceEquals(entry.Owner, owner)
        && _objects.TryRemove(new(name, entry));

    /// <summary>Takes back everything of an owner that is gone.</summary>
    public void RemoveAll(object owner)
    {
        foreach (Guid name in _objects.Where(entry => ReferenceEquals(entry.Value.Owner, owner)).Select(e => e.Key))
        {
            Remove(name, owner);
        }
    }

    /// <summary>Finds an object.</summary>
    /// <returns>Its memory, which the caller disposes; null when there is none.</returns>
    public Task<SharedMemory?> LookUpAsync(Guid name) =>
        _objects.TryGetValue(name, out (object Owner, Func<Task<SharedMemory?>> Find) entry)
            ? entry.Find()
            : Task.FromResult<SharedMemory?>(null);
}

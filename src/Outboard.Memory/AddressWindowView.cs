// A range of addresses as shared memory: what is mapped into the range meanwhile is what its users see.
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Memory;

/// <summary>A part of an <see cref="AddressWindow"/>, which outlives it. Disposing does nothing.</summary>
public sealed class AddressWindowView(AddressWindow window, ulong start, ulong sizeBytes) : SharedMemory
{
    /// <summary>All of a range.</summary>
    public AddressWindowView(AddressWindow window)
        : this(window, 0, (window ?? throw new ArgumentNullException(nameof(window))).SizeBytes)
    {
    }

    /// <inheritdoc/>
    public override ulong SizeBytes => sizeBytes;

    /// <inheritdoc/>
    public override FileIdentity Identity => default;

    /// <inheritdoc/>
    public override MemoryMapping Map(ulong offset, ulong length, bool writable = true) =>
        offset <= sizeBytes && length <= sizeBytes - offset
            ? window.View(start + offset, length)
            : throw new IOException($"{length} bytes at {offset} leave a window of {sizeBytes}");

    /// <inheritdoc/>
    public override void Dispose()
    {
    }
}

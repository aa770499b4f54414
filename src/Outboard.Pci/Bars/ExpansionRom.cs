// A read-only image that firmware runs: the expansion ROM.
using System.Numerics;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Bars;

/// <summary>An expansion ROM. Reads beyond the image give ones, as an empty ROM does.</summary>
public sealed class ExpansionRom
{
    private const int SmallestBytes = 2048;
    private const int LargestBytes = 16 << 20;
    private readonly byte[] _image;

    /// <summary>Takes an image of at most 16 MiB.</summary>
    public ExpansionRom(ReadOnlySpan<byte> image)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(image.Length, LargestBytes, nameof(image));
        _image = image.ToArray();
        SizeBytes = Math.Max(BitOperations.RoundUpToPowerOf2((uint)image.Length), SmallestBytes);
    }

    /// <summary>Bytes that the ROM claims: a power of two.</summary>
    public uint SizeBytes { get; }

    /// <summary>Reads; the range lies inside the ROM.</summary>
    public void Read(ulong offset, Span<byte> destination)
    {
        destination.Fill(0xff);
        if (offset < (ulong)_image.Length)
        {
            int count = Math.Min(destination.Length, _image.Length - (int)offset);
            _image.AsSpan((int)offset, count).CopyTo(destination);
        }
    }

    internal void PlaceIn(PciConfigSpace config) =>
        config.AllowWrites(PciRegister.ExpansionRom, ~(ulong)(SizeBytes - 1) | 1, sizeof(uint));
}

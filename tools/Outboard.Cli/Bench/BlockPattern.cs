// The content of a block in a verified load. Every sector of 512 bytes tells where it belongs and when it was written,
// so that a wrong block can be diagnosed:
//   0 sector number u64      8 generation u32, 12 the run's seed u32      16 .. 511 numbers that follow from the three
using System.Runtime.InteropServices;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>Fills blocks, and diagnoses them.</summary>
internal readonly struct BlockPattern(uint seed)
{
    /// <summary>What a buffer is filled with before a read.</summary>
    public const byte Untouched = 0xA5;

    private const int HeadBytes = 16;
    private const ulong Multiplier = 6364136223846793005;
    private const ulong Increment = 1442695040888963407;

    /// <summary>Fills a block as its generation has it.</summary>
    public void Fill(Span<byte> block, ulong firstSector, uint generation)
    {
        for (int at = 0; at < block.Length; at += BlockConfig.SectorBytes)
        {
            ulong number = firstSector + (ulong)(at / BlockConfig.SectorBytes);
            FillSector(block.Slice(at, BlockConfig.SectorBytes), number, generation);
        }
    }

    /// <summary>Looks at a block.</summary>
    /// <returns>Null when it is as written; otherwise what is wrong with it.</returns>
    public string? Diagnose(ReadOnlySpan<byte> block, ulong firstSector, uint generation)
    {
        Span<byte> expected = stackalloc byte[BlockConfig.SectorBytes];
        for (int at = 0; at < block.Length; at += BlockConfig.SectorBytes)
        {
            FillSector(expected, firstSector + (ulong)(at / BlockConfig.SectorBytes), generation);
            if (!block.Slice(at, BlockConfig.SectorBytes).SequenceEqual(expected))
            {
                return Explain(block, firstSector, generation);
            }
        }

        return null;
    }

    private void FillSector(Span<byte> sector, ulong number, uint generation)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(sector);
        words[0] = number;
        words[1] = ((ulong)seed << 32) | generation;
        ulong value = RandomSequence.Mix((number * 31) ^ words[1]);
        for (int i = HeadBytes / sizeof(ulong); i < words.Length; i++)
        {
            value = (value * Multiplier) + Increment;
            words[i] = value;
        }
    }

    private string Explain(ReadOnlySpan<byte> block, ulong firstSector, uint generation)
    {
        SortedDictionary<uint, int> generations = [];
        Span<byte> expected = stackalloc byte[BlockConfig.SectorBytes];
        for (int at = 0; at < block.Length; at += BlockConfig.SectorBytes)
        {
            ReadOnlySpan<byte> sector = block.Slice(at, BlockConfig.SectorBytes);
            ulong number = firstSector + (ulong)(at / BlockConfig.SectorBytes);
            ulong foundNumber = MemoryMarshal.Read<ulong>(sector);
            uint foundGeneration = MemoryMarshal.Read<uint>(sector[8..]);
            bool isOfThisRun = MemoryMarshal.Read<uint>(sector[12..]) == seed;
            if (!isOfThisRun)
            {
                string what = !sector.ContainsAnyExcept((byte)0) ? "holds zeroes"
                    : !sector.ContainsAnyExcept(Untouched) ? "was not transferred: the buffer is as it was"
                    : "holds something that this run never wrote";
                return $"sector {number} {what}";
            }

            if (foundNumber != number)
            {
                return $"misplaced: sector {number} holds sector {foundNumber} of generation {foundGeneration}";
            }

            FillSector(expected, number, foundGeneration);
            if (!sector.SequenceEqual(expected))
            {
                return $"corrupt: sector {number} differs from byte {sector.CommonPrefixLength(expected)} on";
            }

            generations[foundGeneration] = generations.GetValueOrDefault(foundGeneration) + 1;
        }

        string found = string.Join(", ", generations.Keys);
        string kind = generations.Count > 1 ? "torn"
            : generations.Keys.First() < generation ? "lost or stale"
            : "unexpected";
        return $"{kind}: generation {found} instead of {generation}";
    }
}

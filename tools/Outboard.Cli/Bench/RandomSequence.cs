// xorshift64*: a fast, repeatable sequence for choosing blocks. Nothing here needs to be unpredictable.
namespace Outboard.Cli.Bench;

/// <summary>A pseudo-random sequence.</summary>
internal struct RandomSequence(ulong seed)
{
    private ulong _state = Mix(seed);

    /// <summary>A number from 0 to <paramref name="limit"/> - 1.</summary>
    public ulong Below(ulong limit) => Math.BigMul(Next(), limit, out _);

    /// <summary>Whether an event happens that happens with this many per cent.</summary>
    public bool Happens(int percent) => Below(100) < (ulong)percent;

    /// <summary>Spreads a number over all bits; never 0.</summary>
    public static ulong Mix(ulong value)
    {
        ulong z = value + 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return (z ^ (z >> 31)) | 1;
    }

    private ulong Next()
    {
        ulong x = _state;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        _state = x;
        return x * 0x2545F4914F6CDD1D;
    }
}

// The device is killed before each single store that it ever makes into shared memory, and another one takes over: the
// driver gets every chain back exactly once, with its answer, and what was held is submitted again in its order.
//
// Also killed: the successor, at each store of its recovery; and the first device with every subset of those last
// stores lost whose order the language leaves open (see StoreJournal).
using Xunit;

namespace Outboard.Tests.Virtio.Crash;

public sealed class CrashAtEveryStoreTests
{
    private const int Rounds = 7;

    public static TheoryData<bool, bool, int, bool, int, int> Shapes()
    {
        TheoryData<bool, bool, int, bool, int, int> shapes = [];
        foreach (bool packed in (bool[])[false, true])
        {
            foreach (bool indirect in (bool[])[false, true])
            {
                // Batches of one; small batches in a ring that wraps often; batches as large as the ring.
                shapes.Add(false, packed, 4, indirect, 0, 1);
                shapes.Add(false, packed, 4, indirect, 0, 3);
                shapes.Add(false, packed, 8, indirect, 0, 8);

                // In order: what waits behind a hole is held as well, and one used entry stands for several chains.
                shapes.Add(true, packed, 4, indirect, 0, 3);
                shapes.Add(true, packed, 8, indirect, 0, 8);
            }
        }

        // The indices of a split ring wrap at 65536; a packed ring need not be a power of two.
        shapes.Add(false, false, 8, false, 65530, 5);
        shapes.Add(true, false, 8, false, 65530, 5);
        shapes.Add(false, true, 5, false, 0, 4);
        shapes.Add(false, true, 7, true, 0, 5);
        shapes.Add(true, true, 7, true, 0, 5);
        return shapes;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Nothing_is_lost_or_doubled_wherever_the_device_is_killed(
        bool inOrder, bool packed, int size, bool indirect, int first, int batch)
    {
        RingShape shape = new(packed, size, indirect, (ushort)first, inOrder);
        List<RingStep> script = RingScript.Make(size + batch, Rounds, batch);
        int stores = Run(shape, script, []).Stores;
        Assert.InRange(stores, 30, 5000);
        int kills = 0;
        for (int store = 0; store < stores; store++)
        {
            int unordered = Run(shape, script, [store]).Unordered;
            kills++;
            for (int lost = 1; lost < 1 << unordered; lost++)
            {
                Run(shape, script, [store], lost);
                kills++;
            }
        }

        Assert.True(kills >= stores);
    }

    [Theory]
    [InlineData(false, false, false)]
    [InlineData(false, true, false)]
    [InlineData(true, false, false)]
    [InlineData(true, true, false)]
    [InlineData(false, false, true)]
    [InlineData(true, false, true)]
    public void Nothing_is_lost_or_doubled_when_the_successor_is_killed_in_its_recovery(
        bool packed, bool indirect, bool inOrder)
    {
        RingShape shape = new(packed, 4, indirect, 0, inOrder);
        List<RingStep> script = RingScript.Make(seed: 11, rounds: 4, batch: 3);
        int stores = Run(shape, script, []).Stores;
        for (int store = 0; store < stores; store++)
        {
            int rest = Run(shape, script, [store]).Stores;
            for (int second = 0; second < Math.Min(rest, 40); second++)
            {
                Assert.Equal(2, Run(shape, script, [store, second]).Kills);
            }
        }
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public void Nothing_is_lost_or_doubled_through_a_chain_of_kills(bool packed, bool inOrder)
    {
        for (int seed = 0; seed < 200; seed++)
        {
            Random random = new(seed);
            RingShape shape = new(packed, 8, seed % 2 == 0, (ushort)(seed % 3 == 0 && !packed ? 65530 : 0), inOrder);
            List<RingStep> script = RingScript.Make(seed, rounds: 12, batch: 6);
            int[] kills = [.. Enumerable.Range(0, 12).Select(_ => random.Next(1, 60))];
            Run(shape, script, kills);
        }
    }

    private static CrashingRing Run(RingShape shape, List<RingStep> script, int[] kills, int lost = 0)
    {
        using CrashingRing ring = new(shape);
        try
        {
            ring.Run(script, kills, lost);
        }
        catch (Exception error)
        {
            string where = $"{shape}, killed before store {string.Join(", then ", kills)}, lost 0x{lost:x}";
            throw new InvalidOperationException($"{where}: {error.Message}", error);
        }

        return ring;
    }
}

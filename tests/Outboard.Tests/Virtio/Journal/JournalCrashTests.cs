// The device is ended before each single store that it makes into its state file, its ring and its in-flight region:
// every request takes effect exactly once. So is its successor, at each store of its recovery; and with subsets of the
// last stores lost whose order the language leaves open. The same with processes: tests/Outboard.JournalKills.
using Outboard.JournalKills;
using Xunit;

namespace Outboard.Tests.Virtio.Journal;

public sealed class JournalCrashTests
{
    private const int Rounds = 4;

    /// <summary>Unordered stores of which every subset is lost; of more, each one, and all but each one.</summary>
    private const int FewStores = 4;

    public static TheoryData<bool, bool, bool, int, bool, bool> Shapes()
    {
        TheoryData<bool, bool, bool, int, bool, bool> shapes = [];
        foreach (bool isRegister in (bool[])[false, true])
        {
            // In a small ring every slot is soon used again.
            shapes.Add(false, true, isRegister, 4, false, false);
            shapes.Add(false, true, isRegister, 16, false, false);
            shapes.Add(true, true, isRegister, 4, false, false);
            shapes.Add(true, true, isRegister, 16, false, false);
            shapes.Add(false, false, isRegister, 4, false, false);
            shapes.Add(false, false, isRegister, 16, false, false);
            shapes.Add(false, true, isRegister, 8, true, false);
            shapes.Add(true, true, isRegister, 8, true, false);
            shapes.Add(false, false, isRegister, 8, true, false);

            // Several requests are open at once, and take effect in any order.
            shapes.Add(false, true, isRegister, 8, false, true);
            shapes.Add(true, true, isRegister, 8, false, true);
            shapes.Add(false, true, isRegister, 8, true, true);
            shapes.Add(true, true, isRegister, 8, true, true);
            shapes.Add(false, false, isRegister, 4, false, true);
        }

        return shapes;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Each_request_takes_effect_once_wherever_the_device_is_killed(
        bool packed, bool tracked, bool register, int size, bool inOrder, bool deferred)
    {
        KillShape shape = new(packed, tracked, register, size, inOrder, deferred);
        int stores = Run(shape, size, []).Stores;
        Assert.InRange(stores, 50, 2000);
        for (int store = 0; store < stores; store++)
        {
            JournalRig killed = Run(shape, size, [store]);
            Assert.Equal(1, killed.Kills);
            foreach (int lost in Subsets(killed.Unordered))
            {
                Run(shape, size, [store], lost);
            }
        }
    }

    [Theory]
    [InlineData(false, true, false)]
    [InlineData(true, true, false)]
    [InlineData(false, false, false)]
    [InlineData(false, true, true)]
    [InlineData(true, true, true)]
    public void Each_request_takes_effect_once_when_the_successor_is_killed_as_well(
        bool packed, bool tracked, bool deferred)
    {
        KillShape shape = new(packed, tracked, IsRegister: true, 4, IsDeferred: deferred);
        int stores = Run(shape, 11, []).Stores;
        for (int store = 0; store < stores; store++)
        {
            int rest = Run(shape, 11, [store]).Stores;
            for (int second = 0; second < Math.Min(rest, 30); second++)
            {
                Assert.Equal(2, Run(shape, 11, [store, second]).Kills);
            }
        }
    }

    [Theory]
    [InlineData(false, true)]
    [InlineData(true, true)]
    [InlineData(false, false)]
    public void Each_request_takes_effect_once_through_a_chain_of_kills(bool packed, bool tracked)
    {
        for (int seed = 0; seed < 100; seed++)
        {
            Random random = new(seed);
            KillShape shape = new(packed, tracked, IsRegister: seed % 2 == 0, 8, IsDeferred: seed % 3 == 0);
            Run(shape, seed, [.. Enumerable.Range(0, 12).Select(_ => random.Next(1, 60))]);
        }
    }

    /// <summary>A guest that was started again gets no answers to what it asked before.</summary>
    [Theory]
    [InlineData(false, true, 0)]
    [InlineData(false, true, 5)]
    [InlineData(true, true, 0)]
    [InlineData(true, true, 5)]
    [InlineData(false, false, 5)]
    public void A_ring_that_was_reset_meanwhile_begins_anew(bool packed, bool tracked, int requests)
    {
        using JournalRig rig = new(new KillShape(packed, tracked, IsRegister: false, 8), seed: 3);
        rig.RunThroughReset(requests);
    }

    private static IEnumerable<int> Subsets(int unordered)
    {
        int all = (1 << unordered) - 1;
        return unordered <= FewStores
            ? Enumerable.Range(1, all)
            : Enumerable.Range(0, unordered).SelectMany(i => (int[])[1 << i, all & ~(1 << i)]).Append(all);
    }

    private static JournalRig Run(KillShape shape, int seed, int[] kills, int lost = 0)
    {
        using JournalRig rig = new(shape, seed);
        try
        {
            rig.Run(kills.Length > 2 ? 3 * Rounds : Rounds, kills, lost);
        }
        catch (Exception error)
        {
            string stores = string.Join(", then ", kills);
            string where = $"{shape}, seed {seed}, killed before store {stores}, lost 0x{lost:x}";
            throw new InvalidOperationException($"{where}: {error.Message}", error);
        }

        return rig;
    }
}

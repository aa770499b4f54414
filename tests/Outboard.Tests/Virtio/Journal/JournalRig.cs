// A counter or a register whose device is ended before a chosen store, and followed by another one on the same ring and
// the same state file. The driver lives on; ModelDriver knows what it is owed.
using Outboard.JournalKills;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Journal;

internal sealed class JournalRig : IDisposable
{
    /// <summary>No kill.</summary>
    internal const int Never = int.MaxValue;

    private readonly KillShape _shape;
    private readonly DriverMemory _memory = new(1 << 20);
    private readonly FileDescriptor _state = MemFd.CreateUnsealed("state", 0);
    private readonly Random _random;
    private MemoryWindow _region;
    private KilledDevice? _device;
    private bool _hasBegun;

    internal JournalRig(KillShape shape, int seed)
    {
        _shape = shape;
        _random = new Random(seed);
        Driver = MakeRing(seed);
    }

    internal ModelDriver Driver { get; private set; }

    /// <summary>Stores of the last device, up to the kill or the end.</summary>
    internal int Stores { get; private set; }

    internal int Kills { get; private set; }

    /// <summary>Stores before the last kill whose order the language does not fix.</summary>
    internal int Unordered { get; private set; }

    public void Dispose()
    {
        _device?.Dispose();
        _state.Dispose();
        _memory.Dispose();
    }

    /// <summary>Runs some requests with kills at the given stores, each counted from the kill before.</summary>
    /// <param name="rounds">Batches of requests.</param>
    /// <param name="kills">Stores that each device makes before it is killed.</param>
    /// <param name="lost">Of the unordered stores before the first kill, those that did not reach the memory.</param>
    internal void Run(int rounds, int[] kills, int lost = 0)
    {
        int round = 0;
        for (int life = 0; ; life++)
        {
            StoreJournal? open = null;
            int toLose = life == 0 ? lost : 0;
            int limit = life < kills.Length ? kills[life] : Never;
            using StoreJournal journal = new(limit, () => Lose(open!, toLose));
            open = journal;
            try
            {
                Start();
                for (; round < rounds; round++)
                {
                    Round();
                }

                Finish();
                Stores = journal.Count;
                return;
            }
            catch (StoreLimitException)
            {
                Stores = journal.Count;
                Kills++;
                _device?.Dispose();
                _device = null;
            }
        }
    }

    /// <summary>Kills the device between a commit and its publication; the ring is reset meanwhile.</summary>
    internal void RunThroughReset(int requests)
    {
        Start();
        for (int i = 0; i < requests; i++)
        {
            Driver.Add(1);
            Assert.Equal(1, _device!.Serve(1));
            Assert.Equal(1, Driver.Collect());
        }

        Driver.Add(1);
        Assert.Equal(1, _device!.ServeSilently(1));
        Kills++;
        _device.Dispose();
        _device = null;
        ulong value = Driver.Value;
        Driver = MakeRing(seed: 77);
        Driver.Value = value;
        _hasBegun = false;
        Start();
        Driver.Add(3);
        Finish();
    }

    private ModelDriver MakeRing(int seed)
    {
        uint bytes = InflightSpec.QueueBytes(_shape.IsPacked, _shape.Size);
        Assert.True(_memory.Memory.TryGetWindow(_memory.Allocate(bytes, 64).GuestAddress, bytes, out _region));
        return new ModelDriver(_shape, _memory, seed);
    }

    /// <summary>While all of the memory is still mapped.</summary>
    private void Lose(StoreJournal journal, int lost)
    {
        Unordered = journal.UnorderedCount;
        for (int i = Unordered - 1; i >= 0; i--)
        {
            if ((lost & (1 << i)) != 0)
            {
                journal.Undo(i);
            }
        }
    }

    private void Start()
    {
        _ = Silently(Driver.Collect);
        if (_hasBegun)
        {
            // The driver does not wait: it may use a slot again that it got back from the one that died.
            Add(_random.Next(3));
        }

        VringSetup setup = new()
        {
            Index = 0,
            Size = _shape.Size,
            Addresses = Driver.Ring.Addresses,
            Base = _shape.IsTracked ? Driver.Ring.InitialBase : Driver.Ring.UsedBase,
            Features = _shape.Features,
            Memory = _memory.Memory,
            Inflight = _shape.IsTracked ? _region : null,
        };
        _hasBegun = true;
        _device = new KilledDevice(
            _shape, OwnedFile.Open(_state, "state"), setup, _shape.IsDeferred ? new Random(_random.Next()) : null);
    }

    private void Round()
    {
        Add(_random.Next(1, 4));
        if (_random.Next(2) == 0)
        {
            _ = _device!.ServeSilently(_random.Next(1, 3));
        }

        _ = _device!.Serve(_random.Next(1, 4));
        Assert.Equal(VirtqueueFault.None, _device.Fault);
        _ = Silently(Driver.Collect);
    }

    private void Finish()
    {
        while (Driver.InFlight > 0)
        {
            Assert.NotEqual(0, _device!.Serve(_shape.Size));
            _ = Silently(Driver.Collect);
        }

        Assert.Equal(Driver.Value, _device!.Value);
        Assert.InRange(_device.Owners, 1UL, (ulong)Kills + 1);
        _device.Stop();
    }

    private void Add(int count) => Silently(() =>
    {
        Driver.Add(count);
        return 0;
    });

    private static int Silently(Func<int> action)
    {
        using (StoreJournal.Pause())
        {
            return action();
        }
    }
}

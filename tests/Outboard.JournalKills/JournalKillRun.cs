// Kills device processes: each at the next numbered store of its life, every third one at a random moment instead. The
// driver is in this process, keeps the ring filled, and checks every reply.
using System.Diagnostics;
using System.Globalization;
using Outboard.Linux.Files;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.JournalKills;

internal sealed class JournalKillRun(KillShape shape, int seed) : IDisposable
{
    /// <summary>Every so manieth process is killed at a random moment.</summary>
    private const int RandomShare = 3;

    private const int Batch = 12;
    private const int RingSize = 32;
    private const ulong NoLimit = int.MaxValue;

    /// <summary>No process lives longer without an answer.</summary>
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    private readonly DriverMemory _memory = new(1 << 20);
    private readonly string _state = Path.Combine(
        "/dev/shm", $"outboard-kills-{Environment.ProcessId}-{KilledChild.Text(shape)}");

    private readonly Random _random = new(seed);
    private readonly HashSet<int> _stores = [];
    private ModelDriver _driver = null!;
    private ulong _region;
    private int _atStores;
    private int _atRandom;
    private int _store;

    /// <summary>
    /// Kills devices on every kind of ring, split and packed, with and without an in-flight region; also such that keep
    /// several requests open and let them take effect in any order.
    /// </summary>
    public static bool RunAll(int kills, int seed)
    {
        KillShape[] shapes =
        [
            new(false, true, false, RingSize), new(true, true, false, RingSize), new(false, false, false, RingSize),
            new(false, true, true, RingSize), new(true, true, true, RingSize), new(false, false, true, RingSize),
            new(false, true, false, RingSize, IsDeferred: true), new(true, true, false, RingSize, IsDeferred: true),
            new(false, true, true, RingSize, IsDeferred: true), new(true, true, true, RingSize, IsDeferred: true),
            new(false, true, true, RingSize, IsInOrder: true, IsDeferred: true),
            new(false, false, true, RingSize, IsDeferred: true),
        ];
        bool isGood = true;
        int share = (kills + shapes.Length - 1) / shapes.Length;
        foreach (KillShape shape in shapes)
        {
            using JournalKillRun run = new(shape, seed);
            isGood &= run.Run(share);
        }

        return isGood;
    }

    public void Dispose()
    {
        _memory.Dispose();
        File.Delete(_state);
    }

    private bool Run(int kills)
    {
        long start = Stopwatch.GetTimestamp();
        _driver = new ModelDriver(shape, _memory, seed);
        _region = _memory.Allocate(InflightSpec.QueueBytes(shape.IsPacked, shape.Size), 64).GuestAddress;
        string outcome = "each request took effect once";
        try
        {
            while (_atStores + _atRandom < kills)
            {
                LiveOnce();
            }

            Finish();
        }
        catch (InvalidDataException error)
        {
            outcome = $"WRONG: {error.Message}";
        }

        string what = $"{(shape.IsRegister ? "register" : "counter")}, {(shape.IsPacked ? "packed" : "split")} ring, "
            + (shape.IsTracked ? "in-flight region" : "no region") + (shape.IsInOrder ? ", in order" : "")
            + (shape.IsDeferred ? ", requests kept open" : "");
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{what}: {_atStores} kills at {_stores.Count} different stores, {_atRandom} at random moments, "
            + $"{_driver.Completed} requests, {_driver.Swaps} swaps, "
            + $"{Stopwatch.GetElapsedTime(start).TotalSeconds:F0} s: {outcome}"));
        return outcome[0] == 'e';
    }

    /// <summary>One process, from its start to its kill.</summary>
    private void LiveOnce()
    {
        _ = _driver.Collect();
        _driver.Add(_random.Next(1, Batch));
        bool isRandom = _random.Next(RandomShare) == 0;
        using Process child = Start(isRandom ? NoLimit : (ulong)_store);
        long start = Stopwatch.GetTimestamp();
        if (isRandom)
        {
            // some while it starts, most while it works
            double wait = _random.NextDouble() * (_random.Next(8) == 0 ? 20 : 2);
            bool hasBegun = wait > 2;
            while (Stopwatch.GetElapsedTime(start) < s_limit
                && (!hasBegun || Stopwatch.GetElapsedTime(start).TotalMilliseconds < wait))
            {
                if (!hasBegun && _driver.Collect() > 0)
                {
                    hasBegun = true;
                    start = Stopwatch.GetTimestamp();
                }

                _driver.Add(1);
            }

            child.Kill();
            child.WaitForExit();
            _atRandom++;
            return;
        }

        while (!child.WaitForExit(TimeSpan.Zero))
        {
            _ = _driver.Collect();
            if (_driver.InFlight == 0)
            {
                // It lived longer than its requests: the last numbered store was reached.
                child.Kill();
                child.WaitForExit();
                _store = 0;
                _atRandom++;
                return;
            }

            if (Stopwatch.GetElapsedTime(start) > s_limit)
            {
                child.Kill();
                throw new InvalidDataException($"the device does not answer, before store {_store}");
            }

            Thread.Yield();
        }

        if (child.ExitCode != 128 + 9)
        {
            throw new InvalidDataException($"the device ended with status {child.ExitCode}, before store {_store}");
        }

        _stores.Add(_store++);
        _atStores++;
    }

    /// <summary>The last process answers what is left, and its state is looked at.</summary>
    private void Finish()
    {
        _ = _driver.Collect();
        using Process child = Start(NoLimit);
        long start = Stopwatch.GetTimestamp();
        while (_driver.InFlight > 0 && Stopwatch.GetElapsedTime(start) < s_limit)
        {
            _ = _driver.Collect();
        }

        child.Kill();
        child.WaitForExit();
        if (_driver.InFlight > 0)
        {
            throw new InvalidDataException($"{_driver.InFlight} requests are never answered");
        }

        using KilledDevice last = new(shape, OwnedFile.Open(_state), Setup());
        if (last.Value != _driver.Value)
        {
            throw new InvalidDataException($"the state is {last.Value}, {_driver.Value} is due");
        }
    }

    private Outboard.Virtio.Queue.VringSetup Setup() => new()
    {
        Index = 0,
        Size = shape.Size,
        Addresses = _driver.Ring.Addresses,
        Base = _driver.Ring.UsedBase,
        Features = shape.Features,
        Memory = _memory.Memory,
    };

    private Process Start(ulong stores)
    {
        uint ringBase = shape.IsTracked ? _driver.Ring.InitialBase : _driver.Ring.UsedBase;
        ProcessStartInfo information = new(Environment.ProcessPath!)
        {
            UseShellExecute = false,
        };
        string memory = $"/proc/{Environment.ProcessId}/fd/{_memory.File.Descriptor.Number}";
        object[] arguments =
        [
            "child", memory, _memory.BusAddress, _state, _region, KilledChild.Text(shape),
            _driver.Ring.Addresses.Descriptors, _driver.Ring.Addresses.Available, _driver.Ring.Addresses.Used,
            ringBase, stores,
        ];
        foreach (object argument in arguments)
        {
            information.ArgumentList.Add(string.Create(CultureInfo.InvariantCulture, $"{argument}"));
        }

        return Process.Start(information)!;
    }
}

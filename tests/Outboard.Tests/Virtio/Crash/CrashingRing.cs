// A ring with an in-flight region whose device is killed before a chosen store, and followed by another device on the
// same memory. The driver lives on, and knows what it is owed: every chain exactly once, with the right answer.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Crash;

internal sealed class CrashingRing : IDisposable
{
    /// <summary>No kill.</summary>
    internal const int Never = int.MaxValue;

    private const int SlotBytes = 64;
    private const uint Key = 0x9E3779B9;

    private readonly RingShape _shape;
    private readonly DriverMemory _memory = new(1 << 20);
    private readonly DriverQueue _driver;
    private readonly DriverBuffer _pool;
    private readonly MemoryWindow _region;
    private readonly SortedSet<uint> _owed = [];
    private readonly List<(uint Token, PendingRequest Request)> _held = [];
    private Virtqueue? _device;
    private (uint Token, PendingRequest Request, ushort Position)? _lastTaken;
    private uint _nextToken;
    private uint _publishedTokens;

    internal CrashingRing(RingShape shape)
    {
        _shape = shape;
        _driver = DriverQueue.Create(0, shape.Size, _memory, shape.Features, shape.IsIndirect ? 4 : 0);
        (_driver as SplitDriverQueue)?.StartAt(shape.FirstIndex);
        _pool = _memory.Allocate((uint)shape.Size * SlotBytes, SlotBytes);
        uint bytes = InflightSpec.QueueBytes(shape.IsPacked, shape.Size);
        DriverBuffer region = _memory.Allocate(bytes, 64);
        Assert.True(_memory.Memory.TryGetWindow(region.GuestAddress, bytes, out _region));
    }

    /// <summary>Kills so far.</summary>
    internal int Kills { get; private set; }

    /// <summary>Stores of the devices, up to the kill or the end.</summary>
    internal int Stores { get; private set; }

    /// <summary>Stores before the kill whose order the language does not fix.</summary>
    internal int Unordered { get; private set; }

    public void Dispose()
    {
        _device?.Dispose();
        _memory.Dispose();
    }

    /// <summary>Runs the script with kills at the given numbers of stores, each counted from the kill before.</summary>
    /// <param name="script">What driver and device do.</param>
    /// <param name="kills">Stores that each device makes before it is killed.</param>
    /// <param name="lost">Of the unordered stores before the first kill, those that did not reach the memory.</param>
    internal void Run(IReadOnlyList<RingStep> script, int[] kills, int lost = 0)
    {
        int next = 0;
        int kill = 0;
        while (next <= script.Count)
        {
            using StoreJournal journal = new(kill < kills.Length ? kills[kill] : Never);
            try
            {
                Start();
                for (; next < script.Count; next++)
                {
                    Do(script[next]);
                }

                Finish();
                Stores = journal.Count;
                return;
            }
            catch (StoreLimitException)
            {
                Unordered = journal.UnorderedCount;
                Stores = journal.Count;
                Lose(journal, kill++ == 0 ? lost : 0);
                Die();
            }
        }
    }

    /// <summary>A device begins. One that follows another takes what the driver is owed, oldest first.</summary>
    private void Start()
    {
        bool isFirst = Kills == 0;
        Collect();
        if (!isFirst)
        {
            // The driver does not stop for it: it may have used every descriptor again that it got back.
            Add(Kills % 2 == 1 ? _shape.Size : 1);
        }

        uint[] owed = [.. _owed.Where(token => token < _publishedTokens)];
        uint ringBase = _shape.IsPacked ? _driver.InitialBase : _shape.FirstIndex;
        _device = Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = _shape.Size,
            Addresses = _driver.Addresses,
            Base = ringBase,
            Features = _shape.Features,
            Memory = _memory.Memory,
            Inflight = _region,
        });
        if (isFirst && owed.Length == 0)
        {
            return;
        }

        List<uint> taken = [];
        while (Take() is { } token)
        {
            taken.Add(token);
        }

        Assert.Equal(owed, taken);
    }

    private void Do(RingStep step)
    {
        switch (step.Kind)
        {
            case StepKind.Add:
                Add(step.Argument);
                break;
            case StepKind.Take:
                _ = Take();
                break;
            case StepKind.Complete when _held.Count > 0:
                Complete(step.Argument % _held.Count);
                break;
            case StepKind.PutBack when _lastTaken is { } last && _held.Count > 0 && _held[^1].Token == last.Token:
                _held.RemoveAt(_held.Count - 1);
                _lastTaken = null;
                _device!.PutBack(last.Request, last.Position);
                break;
            case StepKind.Publish:
                _device!.Publish();
                _ = _device.ShouldCall();
                break;
            case StepKind.Arm:
                _ = _device!.ArmKicks();
                _device.SuppressKicks();
                break;
            case StepKind.Collect:
                Collect();
                break;
        }

        Assert.Equal(VirtqueueFault.None, _device!.Fault);
    }

    private void Finish()
    {
        Add(0);
        while (_owed.Count > 0)
        {
            while (Take() is not null)
            {
            }

            while (_held.Count > 0)
            {
                Complete(_held.Count / 2);
            }

            _device!.Publish();
            Collect();
        }

        Assert.Equal(_driver.Size, _driver.FreeDescriptors);
        Assert.Equal(0, _device!.InFlight);
        Assert.Equal(_nextToken, _publishedTokens);
    }

    /// <summary>The driver's own stores are not journaled: it is not the one that dies.</summary>
    private void Add(int count)
    {
        for (int i = 0; i < count && _owed.Count < _shape.Size; i++)
        {
            DriverBuffer slot = _pool.Slice((uint)(_nextToken % _shape.Size) * SlotBytes, SlotBytes);
            if (_owed.Contains(_nextToken - (uint)_shape.Size))
            {
                break;
            }

            BinaryPrimitives.WriteUInt32LittleEndian(slot.Span, _nextToken);
            BinaryPrimitives.WriteUInt32LittleEndian(slot.Span[16..], 0);
            DriverBuffer[] readable = _nextToken % 3 == 1
                ? [slot.Slice(0, 2), slot.Slice(2, 2)]
                : [slot.Slice(0, 4)];
            DriverBuffer[] writable = _nextToken % 4 == 3 ? [] : [slot.Slice(16, 4)];
            if (!Silently(() => _driver.TryAdd(readable, writable, _nextToken)))
            {
                break;
            }

            _owed.Add(_nextToken++);
        }

        Silently(() =>
        {
            _driver.Publish();
            return true;
        });
        _publishedTokens = _nextToken;
    }

    private uint? Take()
    {
        ushort position = _device!.Position;
        if (!_device.TryTake(out DescriptorChain chain))
        {
            Assert.Equal(VirtqueueFault.None, _device.Fault);
            return null;
        }

        Span<byte> bytes = stackalloc byte[4];
        Assert.Equal(4, chain.Readable.CopyTo(0, bytes));
        uint token = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        PendingRequest request = chain.Detach();
        _lastTaken = (token, request, position);
        _held.Add((token, request));
        return token;
    }

    private void Complete(int index)
    {
        (uint token, PendingRequest request) = _held[index];
        _held.RemoveAt(index);
        Span<byte> answer = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(answer, token * Key);
        uint written = request.Writable.Length == 0 ? 0 : (uint)request.Writable.CopyFrom(0, answer);
        request.Complete(written);
    }

    /// <summary>A chain that the driver does not miss makes TryCollect throw: nothing is completed twice.</summary>
    private void Collect()
    {
        uint token = 0;
        uint written = 0;
        while (Silently(() => _driver.TryCollect(out token, out written)))
        {
            Assert.True(_owed.Remove(token), $"chain {token} was completed twice");
            bool hasAnswer = token % 4 != 3;
            Assert.Equal(hasAnswer ? 4u : 0u, written);
            DriverBuffer slot = _pool.Slice((uint)(token % _shape.Size) * SlotBytes, SlotBytes);
            Assert.Equal(
                hasAnswer ? token * Key : 0, BinaryPrimitives.ReadUInt32LittleEndian(slot.Span[16..]));
        }
    }

    private static void Lose(StoreJournal journal, int lost)
    {
        for (int i = journal.UnorderedCount - 1; i >= 0; i--)
        {
            if ((lost & (1 << i)) != 0)
            {
                journal.Undo(i);
            }
        }
    }

    private void Die()
    {
        Kills++;
        _held.Clear();
        _lastTaken = null;
        _device?.Dispose();
        _device = null;
    }

    private static bool Silently(Func<bool> action)
    {
        using (StoreJournal.Pause())
        {
            return action();
        }
    }
}

// The driver of a counter or a register that knows what it is owed (ReplyModel). A request that takes effect twice, or
// never, makes a reply wrong, or the last value; a chain that comes back twice or in another order is told as well.
using Outboard.Devices.Register;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.JournalKills;

/// <summary>A ring, and how the device on it is checked.</summary>
/// <param name="IsPacked">Packed or split.</param>
/// <param name="IsTracked">With an in-flight region, or without one.</param>
/// <param name="IsRegister">A register, or a counter.</param>
/// <param name="Size">Descriptors.</param>
/// <param name="IsInOrder">With VIRTIO_F_IN_ORDER: one used entry may stand for several chains.</param>
/// <param name="IsDeferred">Requests are kept open, and take effect in any order.</param>
internal sealed record KillShape(
    bool IsPacked, bool IsTracked, bool IsRegister, int Size, bool IsInOrder = false, bool IsDeferred = false)
{
    public ulong Features =>
        VirtioFeatures.Version1 | VirtioFeatures.EventIndex | (IsPacked ? VirtioFeatures.RingPacked : 0)
        | (IsInOrder ? VirtioFeatures.InOrder : 0);
}

/// <summary>Makes requests and checks the answers.</summary>
internal sealed class ModelDriver
{
    private const int SlotBytes = 64;
    private const int ReplyOffset = 32;

    private readonly KillShape _shape;
    private readonly Random _random;
    private readonly DriverBuffer _pool;
    private readonly ReplyModel _model;
    private readonly Stack<int> _free;
    private readonly Dictionary<uint, int> _inFlight = [];
    private uint _nextToken;

    /// <param name="shape">The ring.</param>
    /// <param name="memory">Where it lies.</param>
    /// <param name="seed">Where the random numbers begin.</param>
    /// <param name="ring">The ring, if there is one.</param>
    public ModelDriver(KillShape shape, DriverMemory memory, int seed, DriverQueue? ring = null)
    {
        _shape = shape;
        _random = new Random(seed);
        _model = shape.IsDeferred ? new AnyOrderModel(shape.IsRegister) : new RingOrderModel(shape.IsRegister);
        Ring = ring ?? DriverQueue.Create(0, shape.Size, memory, shape.Features);
        _pool = memory.Allocate((uint)shape.Size * SlotBytes, SlotBytes);
        _free = new Stack<int>(Enumerable.Range(0, shape.Size));
    }

    public DriverQueue Ring { get; }

    /// <summary>What the device holds when all that was made has taken effect once.</summary>
    public ulong Value
    {
        get => _model.Value;
        set => _model.Value = value;
    }

    /// <summary>Swaps among it.</summary>
    public ulong Swaps => _model.Swaps;

    public int InFlight => _inFlight.Count;

    public long Completed { get; private set; }

    /// <summary>Makes up to so many requests available.</summary>
    public void Add(int count)
    {
        for (int i = 0; i < count && InFlight < _shape.Size / 2; i++)
        {
            int buffer = _free.Pop();
            DriverBuffer slot = _pool.Slice((uint)buffer * SlotBytes, SlotBytes);
            slot.Span.Fill(0xEE);
            int length = _model.Make(_random, _nextToken, slot.Span);
            DriverBuffer reply = slot.Slice(ReplyOffset, RegisterRequests.ReplyBytes);
            DriverBuffer[] readable = length == 0 ? [] : [slot.Slice(0, (uint)length)];
            if (!Ring.TryAdd(readable, [reply], _nextToken))
            {
                throw new InvalidDataException("the ring is full");
            }

            _inFlight.Add(_nextToken++, buffer);
        }

        Ring.Publish();
    }

    /// <summary>Takes what was answered, and checks it.</summary>
    /// <exception cref="InvalidDataException">It is not what is owed.</exception>
    public int Collect()
    {
        int collected = 0;
        while (Ring.TryCollect(out uint token, out uint written))
        {
            if (!_inFlight.Remove(token, out int buffer))
            {
                throw new InvalidDataException($"chain {token} came back, and was not in flight");
            }

            DriverBuffer slot = _pool.Slice((uint)buffer * SlotBytes, SlotBytes);
            _model.Check(token, written, slot.Span.Slice(ReplyOffset, RegisterRequests.ReplyBytes));
            _free.Push(buffer);
            Completed++;
            collected++;
        }

        return collected;
    }
}

// The driver of a counter or a register that knows what it is owed: the device works in the order of the ring, so the
// reply of each request is known when it is made. A request that takes effect twice, or never, makes the next reply
// wrong; a chain that comes back twice or in another order is told as well.
using System.Buffers.Binary;
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
internal sealed record KillShape(bool IsPacked, bool IsTracked, bool IsRegister, int Size, bool IsInOrder = false)
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
    private readonly Queue<(uint Token, ulong Value, RegisterStatus Status)> _owed = new();
    private uint _nextToken;

    /// <param name="shape">The ring.</param>
    /// <param name="memory">Where it lies.</param>
    /// <param name="seed">Where the random numbers begin.</param>
    /// <param name="ring">The ring, if there is one.</param>
    public ModelDriver(KillShape shape, DriverMemory memory, int seed, DriverQueue? ring = null)
    {
        _shape = shape;
        _random = new Random(seed);
        Ring = ring ?? DriverQueue.Create(0, shape.Size, memory, shape.Features);
        _pool = memory.Allocate((uint)shape.Size * SlotBytes, SlotBytes);
    }

    public DriverQueue Ring { get; }

    /// <summary>What the device holds when all that was made has taken effect once.</summary>
    public ulong Value { get; set; }

    /// <summary>Swaps among it.</summary>
    public ulong Swaps { get; private set; }

    public int InFlight => _owed.Count;

    public long Completed { get; private set; }

    /// <summary>Makes up to so many requests available.</summary>
    public void Add(int count)
    {
        for (int i = 0; i < count && _owed.Count < _shape.Size / 2; i++)
        {
            DriverBuffer slot = _pool.Slice((uint)(_nextToken % _shape.Size) * SlotBytes, SlotBytes);
            slot.Span.Fill(0xEE);
            int length = Make(slot.Span, out ulong value, out RegisterStatus status);
            DriverBuffer reply = slot.Slice(ReplyOffset, RegisterRequests.ReplyBytes);
            DriverBuffer[] readable = length == 0 ? [] : [slot.Slice(0, (uint)length)];
            if (!Ring.TryAdd(readable, [reply], _nextToken))
            {
                throw new InvalidDataException("the ring is full");
            }

            _owed.Enqueue((_nextToken++, value, status));
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
            if (!_owed.TryDequeue(out (uint Token, ulong Value, RegisterStatus Status) owed) || owed.Token != token)
            {
                throw new InvalidDataException($"chain {token} came back, {owed.Token} is due");
            }

            ReadOnlySpan<byte> reply = _pool.Slice((uint)(token % _shape.Size) * SlotBytes, SlotBytes)
                .Span.Slice(ReplyOffset, RegisterRequests.ReplyBytes);
            ulong value = BinaryPrimitives.ReadUInt64LittleEndian(reply);
            RegisterStatus status = (RegisterStatus)reply[RegisterRequests.StatusOffset];
            if (written != RegisterRequests.ReplyBytes || value != owed.Value || status != owed.Status)
            {
                throw new InvalidDataException(
                    $"request {token}: {written} bytes, {status} {value}; {owed.Status} {owed.Value} is due");
            }

            Completed++;
            collected++;
        }

        return collected;
    }

    /// <summary>Writes a request, and works out its reply.</summary>
    private int Make(Span<byte> request, out ulong value, out RegisterStatus status)
    {
        status = RegisterStatus.Done;
        if (!_shape.IsRegister)
        {
            bool isOne = _random.Next(2) == 0;
            ulong amount = isOne ? 1 : (ulong)_random.Next(1, 1000);
            BinaryPrimitives.WriteUInt64LittleEndian(request, amount);
            value = Value += amount;
            return isOne ? 0 : RegisterRequests.CounterBytes;
        }

        value = Value;
        ulong expected = _random.Next(4) == 0 ? Value + 1 : Value;
        ulong desired = ((ulong)_nextToken << 20) | (uint)_random.Next(1 << 20);
        BinaryPrimitives.WriteUInt64LittleEndian(request, expected);
        BinaryPrimitives.WriteUInt64LittleEndian(request[8..], desired);
        if (expected != Value)
        {
            status = RegisterStatus.Differs;
            return RegisterRequests.RegisterBytes;
        }

        Swaps++;
        Value = desired;
        return RegisterRequests.RegisterBytes;
    }
}

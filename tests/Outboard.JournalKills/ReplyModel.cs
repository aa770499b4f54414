// What a counter or a register owes its driver. A device that works in the order of the ring owes known replies; one
// that lets requests take effect in any order owes replies that some order explains: sums that follow on each other by
// the amounts that were added, swaps that form one chain.
using System.Buffers.Binary;
using Outboard.Devices.Register;

namespace Outboard.JournalKills;

/// <summary>Makes requests, and checks replies.</summary>
internal abstract class ReplyModel(bool isRegister)
{
    /// <summary>
    /// What the device holds when all that was made has taken effect once. With requests in any order: asked when all
    /// are answered.
    /// </summary>
    /// <exception cref="InvalidDataException">No order of the requests explains their replies.</exception>
    public abstract ulong Value { get; set; }

    /// <summary>Swaps among it.</summary>
    public ulong Swaps { get; protected set; }

    protected bool IsRegister => isRegister;

    /// <summary>Writes a request.</summary>
    /// <returns>Its length.</returns>
    public int Make(Random random, uint token, Span<byte> request)
    {
        if (IsRegister)
        {
            ulong known = Known;
            ulong expected = random.Next(4) == 0 ? known + 1 : known;
            ulong desired = ((token + 1UL) << 20) | (uint)random.Next(1 << 20);
            BinaryPrimitives.WriteUInt64LittleEndian(request, expected);
            BinaryPrimitives.WriteUInt64LittleEndian(request[8..], desired);
            Owe(token, expected, desired);
            return RegisterRequests.RegisterBytes;
        }

        bool isOne = random.Next(2) == 0;
        ulong amount = isOne ? 1 : (ulong)random.Next(1, 1000);
        BinaryPrimitives.WriteUInt64LittleEndian(request, amount);
        Owe(token, amount, 0);
        return isOne ? 0 : RegisterRequests.CounterBytes;
    }

    /// <summary>Checks a reply.</summary>
    /// <exception cref="InvalidDataException">It is not what is owed.</exception>
    public void Check(uint token, uint written, ReadOnlySpan<byte> reply)
    {
        ulong value = BinaryPrimitives.ReadUInt64LittleEndian(reply);
        RegisterStatus status = (RegisterStatus)reply[RegisterRequests.StatusOffset];
        if (written != RegisterRequests.ReplyBytes)
        {
            throw new InvalidDataException($"request {token}: {written} bytes, {status} {value}");
        }

        Check(token, status, value);
    }

    /// <summary>A value that the register had, as far as is known.</summary>
    protected abstract ulong Known { get; }

    /// <summary>Notes a request: an amount, or an expected and a desired value.</summary>
    protected abstract void Owe(uint token, ulong first, ulong second);

    protected abstract void Check(uint token, RegisterStatus status, ulong value);
}

/// <summary>Requests take effect, and are answered, in the order of the ring.</summary>
internal sealed class RingOrderModel(bool isRegister) : ReplyModel(isRegister)
{
    private readonly Queue<(uint Token, ulong Value, RegisterStatus Status)> _owed = new();

    public override ulong Value { get; set; }

    protected override ulong Known => Value;

    protected override void Owe(uint token, ulong first, ulong second)
    {
        ulong old = Value;
        RegisterStatus status = IsRegister && first != old ? RegisterStatus.Differs : RegisterStatus.Done;
        if (status == RegisterStatus.Done)
        {
            Value = IsRegister ? second : old + first;
            Swaps += IsRegister ? 1UL : 0;
        }

        _owed.Enqueue((token, IsRegister ? old : Value, status));
    }

    protected override void Check(uint token, RegisterStatus status, ulong value)
    {
        if (!_owed.TryDequeue(out (uint Token, ulong Value, RegisterStatus Status) owed) || owed.Token != token)
        {
            throw new InvalidDataException($"chain {token} came back, {owed.Token} is due");
        }

        if (value != owed.Value || status != owed.Status)
        {
            throw new InvalidDataException(
                $"request {token}: {status} {value}; {owed.Status} {owed.Value} is due");
        }
    }
}

/// <summary>Requests take effect, and are answered, in any order.</summary>
internal sealed class AnyOrderModel(bool isRegister) : ReplyModel(isRegister)
{
    private readonly Dictionary<uint, (ulong First, ulong Second)> _owed = [];
    private readonly Dictionary<ulong, ulong> _swaps = [];
    private readonly HashSet<ulong> _seen = [];
    private readonly SortedDictionary<ulong, ulong> _sums = [];
    private ulong _start;
    private ulong _known;

    public override ulong Value
    {
        get => IsRegister ? FollowSwaps() : FollowSums();
        set => _start = _known = value;
    }

    protected override ulong Known => _known;

    protected override void Owe(uint token, ulong first, ulong second) => _owed.Add(token, (first, second));

    protected override void Check(uint token, RegisterStatus status, ulong value)
    {
        if (!_owed.Remove(token, out (ulong First, ulong Second) owed))
        {
            throw new InvalidDataException($"chain {token} came back, and was not owed");
        }

        bool isDone = status == RegisterStatus.Done;
        bool isRight = !IsRegister ? isDone && _sums.TryAdd(value, owed.First)
            : isDone ? value == owed.First && _swaps.TryAdd(owed.First, owed.Second)
            : status == RegisterStatus.Differs && value != owed.First;
        if (!isRight)
        {
            throw new InvalidDataException($"request {token} of {owed}: {status} {value}, not for the first time");
        }

        _seen.Add(value);
        _known = IsRegister && isDone ? owed.Second : value;
        Swaps = (ulong)_swaps.Count;
    }

    private ulong FollowSums()
    {
        ulong sum = _start;
        foreach ((ulong next, ulong amount) in _sums)
        {
            sum += amount;
            if (sum != next)
            {
                throw new InvalidDataException($"a sum of {next} after one of {sum - amount}, by {amount}");
            }
        }

        return sum;
    }

    private ulong FollowSwaps()
    {
        HashSet<ulong> had = [_start];
        ulong value = _start;
        while (_swaps.TryGetValue(value, out ulong next) && had.Add(next))
        {
            value = next;
        }

        return had.Count == _swaps.Count + 1 && _seen.IsSubsetOf(had)
            ? value : throw new InvalidDataException($"of {_swaps.Count} swaps {had.Count - 1} form a chain");
    }
}

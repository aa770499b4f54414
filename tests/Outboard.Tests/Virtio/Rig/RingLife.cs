// The random life of one ring: each step is a thing that the driver or the device may do now. Buffers lie in memory
// that is cut into regions at random places, so that many chains cross them. Chains are completed at random; a ring
// with IN_ORDER returns them as they came.
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Virtio.Rig;

internal sealed class RingLife : IDisposable
{
    private const int MaxBuffers = 6;
    private const int BufferBytes = 64;

    private readonly Random _random;
    private readonly DriverMemory _memory;
    private readonly DriverQueue _driver;
    private readonly List<MemoryRegion> _regions = [];
    private readonly Virtqueue _device;
    private readonly DriverBuffer _pool;
    private readonly Dictionary<uint, Request> _requests = [];
    private readonly List<(uint Token, PendingRequest Pending)> _taken = [];
    private readonly Queue<uint> _toTake = [];
    private readonly Queue<uint> _completed = [];
    private readonly Queue<uint> _inOrder = [];
    private readonly HashSet<uint> _waiting = [];
    private readonly bool _isInOrder;
    private readonly Stack<int> _free = [];
    private int _added;
    private int _published;
    private int _visible;
    private uint _token;

    internal RingLife(int size, ulong features, int seed)
    {
        _random = new Random(seed);
        _isInOrder = (features & RawRing.FeatureInOrder) != 0;
        int live = Math.Min(size, 64);
        _memory = new DriverMemory((ulong)(8 << 20));
        bool isIndirect = (features & RawRing.FeatureIndirect) != 0;
        _driver = DriverQueue.Create(0, size, _memory, features, isIndirect ? MaxBuffers : 0);
        _pool = _memory.Allocate((uint)(live * MaxBuffers * BufferBytes));
        for (int i = 0; i < live * MaxBuffers; i++)
        {
            _free.Push(i);
        }

        GuestMemory regions = Cut(_pool.GuestAddress - _memory.GuestAddress);
        _device = Virtqueue.Create(VirtqueuePropertyTests.Setup(_driver, _memory, features, regions));
    }

    public void Dispose()
    {
        _device.Dispose();
        foreach (MemoryRegion region in _regions)
        {
            region.Dispose();
        }

        _memory.Dispose();
    }

    internal void Step()
    {
        switch (_random.Next(7))
        {
            case 0 or 1:
                Add();
                break;
            case 2:
                _driver.Publish();
                _published = _added;
                break;
            case 3:
                Take();
                break;
            case 4:
                Complete();
                break;
            case 5:
                _visible += _completed.Count - _visible;
                _device.Publish();
                break;
            default:
                Collect();
                break;
        }

        Assert.Equal(VirtqueueFault.None, _device.Fault);
        Assert.Equal(_taken.Count, _device.InFlight);
        Assert.Equal(_requests.Count, _driver.InFlight);
        Assert.Equal(_completed.Count > _visible, _device.HasUnpublished);
        Assert.Equal(_published > 0, _device.HasAvailable);
    }

    /// <summary>Lets everything come to its end.</summary>
    internal void Finish()
    {
        _driver.Publish();
        _published = _added;
        while (_requests.Count > 0)
        {
            Take();
            Complete();
            _visible = _completed.Count;
            _device.Publish();
            Collect();
        }

        Assert.Equal(_driver.Size, _driver.FreeDescriptors);
        Assert.Equal(0, _device.InFlight);
    }

    private void Add()
    {
        int readable = _random.Next(MaxBuffers);
        int writable = _random.Next(readable == 0 ? 1 : 0, MaxBuffers - readable + 1);
        if (_free.Count < readable + writable)
        {
            return;
        }

        Request request = new(Buffers(readable), Buffers(writable), new byte[readable * BufferBytes]);
        _random.NextBytes(request.Content);
        int at = 0;
        foreach ((int _, DriverBuffer buffer) in request.Readable)
        {
            request.Content.AsSpan(at, (int)buffer.Length).CopyTo(buffer.Span);
            at += (int)buffer.Length;
        }

        request = request with { Content = request.Content[..at] };
        int free = _driver.FreeDescriptors;
        DriverBuffer[] readables = [.. request.Readable.Select(b => b.Buffer)];
        DriverBuffer[] writables = [.. request.Writable.Select(b => b.Buffer)];
        if (_driver.TryAdd(readables, writables, _token))
        {
            _toTake.Enqueue(_token);
            _requests.Add(_token++, request);
            _added++;
        }
        else
        {
            Assert.True(free < readable + writable);
            Free(request);
        }
    }

    private List<(int Place, DriverBuffer Buffer)> Buffers(int count)
    {
        List<(int Place, DriverBuffer Buffer)> buffers = [];
        for (int i = 0; i < count; i++)
        {
            int place = _free.Pop();
            uint length = (uint)_random.Next(_random.Next(5) == 0 ? 0 : 1, BufferBytes + 1);
            buffers.Add((place, _pool.Slice((uint)(place * BufferBytes), length)));
        }

        return buffers;
    }

    private void Take()
    {
        Assert.Equal(_published > 0, _device.TryTake(out DescriptorChain chain));
        if (_published == 0)
        {
            return;
        }

        _published--;
        _added--;
        uint token = _toTake.Dequeue();
        Request request = _requests[token];
        byte[] content = new byte[chain.Readable.Length];
        Assert.Equal(content.Length, chain.Readable.CopyTo(0, content));
        Assert.Equal(request.Content, content);
        Assert.Equal(request.Writable.Sum(b => b.Buffer.Length), chain.Writable.Length);
        _taken.Add((token, chain.Detach()));
        _inOrder.Enqueue(token);
    }

    private void Complete()
    {
        if (_taken.Count == 0)
        {
            return;
        }

        int index = _random.Next(_taken.Count);
        (uint token, PendingRequest pending) = _taken[index];
        _taken.RemoveAt(index);
        byte[] answer = new byte[_random.Next(4) == 0 ? pending.Writable.Length / 2 : pending.Writable.Length];
        _random.NextBytes(answer);
        Assert.Equal(answer.Length, pending.Writable.CopyFrom(0, answer));
        _requests[token] = _requests[token] with { Answer = answer };
        Return(token);
        pending.Complete((uint)answer.Length);
        Assert.Equal(_waiting.Count, _device.WaitingForTurn);
    }

    /// <summary>What the ring makes of a completion: the chain is returned, or waits for older ones.</summary>
    private void Return(uint token)
    {
        if (!_isInOrder)
        {
            _completed.Enqueue(token);
            return;
        }

        _waiting.Add(token);
        while (_inOrder.TryPeek(out uint oldest) && _waiting.Remove(oldest))
        {
            _completed.Enqueue(_inOrder.Dequeue());
        }
    }

    private void Collect()
    {
        Assert.Equal(_visible > 0, _driver.TryCollect(out uint token, out uint written));
        if (_visible == 0)
        {
            return;
        }

        _visible--;
        Assert.Equal(_completed.Dequeue(), token);
        _requests.Remove(token, out Request? request);
        byte[] answer = [.. request!.Writable.SelectMany(b => b.Buffer.Span.ToArray())];
        Assert.Equal(request.Answer, answer[..request.Answer.Length]);
        Assert.Equal((uint)request.Answer.Length, written);
        Free(request);
    }

    private void Free(Request request)
    {
        foreach ((int place, DriverBuffer _) in request.Readable.Concat(request.Writable))
        {
            _free.Push(place);
        }
    }

    /// <summary>The same memory once more, in adjacent regions: the rings in one, the pool in many.</summary>
    private GuestMemory Cut(ulong ringBytes)
    {
        ulong at = 0;
        ulong length = ringBytes + (ulong)_random.Next(200);
        while (at < _memory.SizeBytes)
        {
            length = Math.Min(length, _memory.SizeBytes - at);
            _regions.Add(new MemoryRegion(_memory.GuestAddress + at, 0, _memory.File.Map(at, length)));
            at += length;
            length = _regions.Count < 400 ? (ulong)_random.Next(1, 300) : _memory.SizeBytes;
        }

        return GuestMemory.Create(_regions);
    }

    private sealed record Request(
        List<(int Place, DriverBuffer Buffer)> Readable,
        List<(int Place, DriverBuffer Buffer)> Writable,
        byte[] Content)
    {
        internal byte[] Answer { get; init; } = [];
    }
}

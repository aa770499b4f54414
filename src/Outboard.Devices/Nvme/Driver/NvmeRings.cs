// A submission and a completion queue in a driver's memory, with their doorbells. One thread uses a pair.
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Driver;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Devices.Nvme.Driver;

/// <summary>A pair of queues, as a driver has it.</summary>
internal sealed class NvmeRings
{
    private const uint PageBytes = 4096;
    private readonly MemoryWindow _submissions;
    private readonly MemoryWindow _completions;
    private readonly int _strideBytes;
    private MemoryWindow _values;
    private MemoryWindow _events;
    private bool _isShadowed;
    private uint _tail;
    private uint _head;
    private ushort _phase = 1;

    internal NvmeRings(PciHandle device, DriverMemory memory, int id, uint size, int strideBytes)
    {
        Device = device;
        _strideBytes = strideBytes;
        Id = id;
        Size = size;
        DriverBuffer submissions = memory.Allocate(size * NvmeCommand.Bytes, PageBytes);
        DriverBuffer completions = memory.Allocate(size * NvmeCompletion.Bytes, PageBytes);
        submissions.Span.Clear();
        completions.Span.Clear();
        SubmissionAddress = submissions.GuestAddress;
        CompletionAddress = completions.GuestAddress;
        _submissions = MemoryWindow.Of(submissions.Memory);
        _completions = MemoryWindow.Of(completions.Memory);
    }

    /// <summary>The function whose doorbells these are.</summary>
    internal PciHandle Device { get; set; }

    internal int Id { get; }

    internal uint Size { get; }

    internal ulong SubmissionAddress { get; }

    internal ulong CompletionAddress { get; }

    /// <summary>Where the device stood in the submission queue, as its last completion told.</summary>
    internal uint DeviceHead { get; private set; }

    /// <summary>Messages that doorbells cost.</summary>
    internal long Messages { get; private set; }

    /// <summary>Rung instead of the register, where the device gave one.</summary>
    internal EventFd? Bell { get; set; }

    /// <summary>Puts doorbells into memory from now on; the queues are new.</summary>
    internal void UseShadow(MemoryWindow values, MemoryWindow events)
    {
        _values = values;
        _events = events;
        _isShadowed = true;
        _values.WriteRelease32((uint)(Id * 2 * _strideBytes), 0);
        _values.WriteRelease32((uint)(((Id * 2) + 1) * _strideBytes), 0);
    }

    /// <summary>Adds a command; the device sees it after <see cref="Ring()"/>.</summary>
    /// <returns>False when the ring is full.</returns>
    internal bool TryAdd(in NvmeCommand command)
    {
        uint next = _tail + 1 == Size ? 0 : _tail + 1;
        if (next == DeviceHead)
        {
            return false;
        }

        _submissions.Write(_tail * NvmeCommand.Bytes, in command);
        _tail = next;
        return true;
    }

    /// <summary>Shows the device what was added.</summary>
    internal void Ring() => Ring(Id * 2, _tail, Bell);

    /// <summary>Takes a completion; the device knows after <see cref="Release"/>.</summary>
    internal bool TryTake(out NvmeCompletion completion)
    {
        uint at = _head * NvmeCompletion.Bytes;
        completion = default;
        if ((_completions.ReadAcquire16(at + 14) & 1) != _phase)
        {
            return false;
        }

        completion = _completions.Read<NvmeCompletion>(at);
        DeviceHead = completion.QueueHead;
        _head++;
        if (_head == Size)
        {
            _head = 0;
            _phase ^= 1;
        }

        return true;
    }

    /// <summary>Gives the device the room of what was taken.</summary>
    internal void Release() => Ring((Id * 2) + 1, _head, null);

    /// <summary>Writes a doorbell's register whatever the queue says: for tests.</summary>
    internal void WriteDoorbell(bool isCompletion, uint value) => Post((Id * 2) + (isCompletion ? 1 : 0), value);

    private void Ring(int index, uint value, EventFd? bell)
    {
        if (!_isShadowed)
        {
            Post(index, value);
            return;
        }

        uint at = (uint)(index * _strideBytes);
        ushort before = _values.ReadAcquire16(at);
        _values.WriteRelease32(at, value);
        Interlocked.MemoryBarrier();
        ushort wanted = _events.ReadAcquire16(at);
        if ((ushort)(value - wanted - 1) >= (ushort)(value - before))
        {
            return;
        }

        if (bell is not null)
        {
            bell.Signal();
        }
        else
        {
            Post(index, value);
        }
    }

    private void Post(int index, uint value)
    {
        Span<byte> data = stackalloc byte[sizeof(uint)];
        BitConverter.TryWriteBytes(data, value);
        Messages++;
        Device.Post(0, (ulong)(NvmeRegister.Doorbells + (index * _strideBytes)), data);
    }
}

// Doorbells in guest memory, as the driver has put them there: NVM Express Base "Doorbell Buffer Config command". The
// driver writes its tail or head to memory and rings the register only when it passes the value that the controller
// wrote beside ("event index"): so that a controller that looks needs no doorbell.
using Outboard.Memory;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>Where the doorbells of all I/O queues are, as one worker sees it. Used by that worker's thread.</summary>
internal sealed class ShadowDoorbells(int strideBytes, int queuePairs)
{
    private ulong _valuesAddress;
    private ulong _eventsAddress;
    private MemoryWindow _values;
    private MemoryWindow _events;
    private bool _isMapped;

    /// <summary>Whether a driver has told where they are.</summary>
    internal bool IsOn { get; private set; }

    /// <summary>Is told of each address that was written; null when nobody wants to know.</summary>
    internal Action<ulong>? Written { get; set; }

    /// <summary>Where values and events are, while <see cref="IsOn"/>.</summary>
    internal (ulong Values, ulong Events) Places => (_valuesAddress, _eventsAddress);

    /// <summary>Bytes of each of the two buffers.</summary>
    internal uint SizeBytes { get; } = (uint)((queuePairs + 1) * 2 * strideBytes);

    internal void Configure(ulong valuesAddress, ulong eventsAddress, GuestMemory memory)
    {
        _valuesAddress = valuesAddress;
        _eventsAddress = eventsAddress;
        IsOn = true;
        Adopt(memory);
    }

    internal void Forget()
    {
        IsOn = false;
        _isMapped = false;
        _values = _events = default;
    }

    internal void Adopt(GuestMemory memory) => _isMapped = IsOn
        && memory.TryGetWindow(_valuesAddress, SizeBytes, out _values)
        && memory.TryGetWindow(_eventsAddress, SizeBytes, out _events);

    /// <summary>Reads a doorbell.</summary>
    /// <returns>False when the buffers are not there at present.</returns>
    internal bool TryRead(int index, out uint value)
    {
        value = _isMapped ? _values.ReadAcquire16((uint)(index * strideBytes)) : 0u;
        return _isMapped;
    }

    /// <summary>Sets a doorbell: of a queue that was there before the buffers.</summary>
    internal void Set(int index, uint value)
    {
        if (_isMapped)
        {
            _values.WriteRelease32((uint)(index * strideBytes), value);
            Written?.Invoke(_valuesAddress + (uint)(index * strideBytes));
        }
    }

    /// <summary>Asks for a ring of the register when the doorbell passes this value.</summary>
    internal void Arm(int index, uint value)
    {
        if (_isMapped)
        {
            _events.WriteRelease32((uint)(index * strideBytes), value);
            Written?.Invoke(_eventsAddress + (uint)(index * strideBytes));
        }
    }
}

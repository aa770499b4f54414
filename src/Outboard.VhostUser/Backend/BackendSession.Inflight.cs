// The in-flight region: a record, shared with the front-end, of the requests that this process holds. The front-end
// keeps it while this process is gone and gives it to the next one, which submits those requests again.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    /// <summary>Far above what all queues of a device need, and small enough for 32-bit offsets.</summary>
    private const ulong MaxInflightBytes = int.MaxValue;

    private MemoryMapping? _inflight;
    private uint _inflightStride;
    private int _inflightQueues;

    /// <summary>Makes a region. An impossible wish is answered with size 0 and nothing attached.</summary>
    private Reply GetInflightFd(VhostUserMessage message)
    {
        InflightPayload wanted = message.Read<InflightPayload>();
        if (wanted.QueueCount == 0 || wanted.QueueCount > _vrings.Length
            || wanted.QueueSize is 0 or > SplitRing.MaxSize)
        {
            _log.LogWarning("GET_INFLIGHT_FD: {Queues} queues of {Size}: refused", wanted.QueueCount, wanted.QueueSize);
            return Reply.Payload(VhostUserMessage.PayloadOf(wanted with { MmapSizeBytes = 0, MmapOffset = 0 }));
        }

        ulong size = (ulong)InflightSpec.QueueBytes(IsPacked, wanted.QueueSize) * wanted.QueueCount;
        try
        {
            using SharedMemory memory = _channel.CreateSharedMemory("outboard-inflight", size);
            byte[] payload = VhostUserMessage.PayloadOf(wanted with { MmapSizeBytes = size, MmapOffset = 0 });
            return Reply.Payload(payload, _channel.Attach(memory));
        }
        catch (IOException error)
        {
            throw new ProtocolException("GET_INFLIGHT_FD", "size", error.Message, error);
        }
    }

    /// <summary>
    /// Takes a region over: a fresh one, or one that an earlier process left. Rings use it from their next start.
    /// </summary>
    private Reply SetInflightFd(VhostUserMessage message)
    {
        InflightPayload region = message.Read<InflightPayload>();
        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("SET_INFLIGHT_FD", "descriptors", "none came");
        }

        if (_vrings.Any(vring => vring.Running is not null))
        {
            throw new ProtocolException(
                "SET_INFLIGHT_FD", "state", "a ring is running: stop all by GET_VRING_BASE first");
        }

        if (region.QueueCount == 0 || region.QueueCount > _vrings.Length
            || region.QueueSize is 0 or > SplitRing.MaxSize)
        {
            throw new ProtocolException("SET_INFLIGHT_FD", "queues", $"{region.QueueCount} of {region.QueueSize}");
        }

        if (region.MmapOffset % sizeof(ulong) != 0)
        {
            throw new ProtocolException("SET_INFLIGHT_FD", "offset", $"0x{region.MmapOffset:x} is not aligned to 8");
        }

        ulong stride = region.MmapSizeBytes / region.QueueCount;
        if (stride < InflightSpec.QueueBytes(IsPacked, region.QueueSize) || stride % sizeof(ulong) != 0
            || region.MmapSizeBytes > MaxInflightBytes)
        {
            throw new ProtocolException(
                "SET_INFLIGHT_FD",
                "size",
                $"{region.MmapSizeBytes} bytes for {region.QueueCount} queues of {region.QueueSize}");
        }

        try
        {
            using SharedMemory memory = message.Attachments[0].ToSharedMemory();
            MemoryMapping mapping = memory.Map(region.MmapOffset, region.MmapSizeBytes);
            _inflight?.Dispose();
            _inflight = mapping;
            _inflightStride = (uint)stride;
            _inflightQueues = region.QueueCount;
            return Reply.Done;
        }
        catch (IOException error)
        {
            throw new ProtocolException("SET_INFLIGHT_FD", "region", error.Message, error);
        }
    }

    /// <summary>A queue's part of the region; null without one.</summary>
    private MemoryWindow? InflightOf(int queue) => _inflight is { } mapping && queue < _inflightQueues
        ? MemoryWindow.Of(mapping).Slice((uint)queue * _inflightStride, _inflightStride)
        : null;
}

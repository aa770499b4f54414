// The virtio-vhost-user device as numbers: configuration space, queues, shared memory regions, features. The drafts of
// 2020 to 2022 differ; what is here is the transport-independent one of 2020 (auxiliary notifications are the
// notifications of further queues) with the configuration space and the shared memory regions of 2022, since that is
// what a stock virtual machine monitor can carry. The device types that the drafts name were given to others.
//
//   queue 0         to the driver: messages of the front-end, and replies to the back-end's own requests
//   queue 1         from the driver: replies to the front-end, and the back-end's own requests
//   queue 2 + 2i    notified by the driver: call of ring i; calls the driver: kick of ring i
//   queue 3 + 2i    notified by the driver: ring i is broken
//   queue 2 + 2N    notified by the driver: the log has changed
//
// Over PCI the notifications of 2022 are there, too (capabilities 6 and 7), in their own order: SlotOfDoorbell.
using Outboard.Virtio;

namespace Outboard.VirtioVhostUser.Protocol;

/// <summary>Numbers of the device.</summary>
public static class VirtioVhostUserSpec
{
    /// <summary>Status bit: the driver is ready for a front-end.</summary>
    public const uint BackendUp = 1;

    /// <summary>Status bit: a front-end is connected. Only the device sets it.</summary>
    public const uint FrontendUp = 2;

    /// <summary>Status bit, with <see cref="WindowStatus"/>: something lies in the regions. Only the device sets it.
    /// </summary>
    public const uint WindowsInUse = 4;

    /// <summary>Bytes of the configuration space.</summary>
    public const int ConfigBytes = 24;

    /// <summary>Bytes of the configuration space with <see cref="SessionNumbers"/>.</summary>
    public const int NumberedConfigBytes = 32;

    /// <summary>Bytes of an identification.</summary>
    public const int IdBytes = 16;

    /// <summary>Region 1: the memory of the front-end's guest.</summary>
    public const byte MemoryWindow = 1;

    /// <summary>Region 2: the log of a migration.</summary>
    public const byte LogWindow = 2;

    /// <summary>Region 3: the record of requests in flight.</summary>
    public const byte InflightWindow = 3;

    /// <summary>
    /// Private feature: an mmap offset that is delivered is an offset in the region. Without it regions lie one behind
    /// the other, each at the sum of the sizes before it, and offsets are 0.
    /// </summary>
    public const ulong ExplicitOffsets = 1UL << 0;

    /// <summary>
    /// Private feature: a buffer of queue 0 that comes back with nothing in it is the end of a session that the device
    /// ended; messages of the session come before it, those of the next one after it. It is a hint that comes early: a
    /// driver that has armed anew does not get the one of the session before.
    /// </summary>
    public const ulong SessionEndBuffers = 1UL << 1;

    /// <summary>
    /// Private feature: sessions have numbers, and no message of one comes before the driver has acknowledged its
    /// number. The configuration space has 32 bytes then.
    /// </summary>
    public const ulong SessionNumbers = 1UL << 2;

    /// <summary>Private feature: auxiliary notifications are those of further queues. It is always offered.</summary>
    public const ulong AuxiliaryByQueue = 1UL << 4;

    /// <summary>Private feature: region 3 is there, and the device makes the record of requests in flight.</summary>
    public const ulong InflightRegion = 1UL << 5;

    /// <summary>
    /// Private feature: the status tells whether something lies in the regions, so that a driver can wait, after it has
    /// cleared <see cref="BackendUp"/> and before it resets the device, until nothing does.
    /// </summary>
    public const ulong WindowStatus = 1UL << 6;

    /// <summary>The queue of messages to the driver.</summary>
    public const int ReceiveQueue = 0;

    /// <summary>The queue of messages from the driver.</summary>
    public const int TransmitQueue = 1;

    /// <summary>The first of the queues that carry nothing but notifications.</summary>
    public const int FirstAuxiliaryQueue = 2;

    /// <summary>
    /// Most rings of a front-end: with more, the queues of the device would not fit into the eight bits by which
    /// vhost-user names a ring, where the device itself stands behind vhost-user.
    /// </summary>
    public const int MaxRings = 126;

    /// <summary>
    /// Bytes of a message with its header, and of a driver's buffers: what the largest message needs, and more.
    /// </summary>
    public const int MaxMessageBytes = 4096;

    /// <summary>Bytes of a message without its header.</summary>
    public const int MaxPayloadBytes = MaxMessageBytes - VhostUser.Protocol.MessageHeader.Bytes;

    /// <summary>Status, le32.</summary>
    public static ConfigField Status { get; } = new(0, 4, IsWritable: true);

    /// <summary>Number of rings that a front-end can have, le32.</summary>
    public static ConfigField MaxVhostQueues { get; } = new(4, 4);

    /// <summary>Identification, 16 bytes; zeroes for none.</summary>
    public static ConfigField Id { get; } = new(8, IdBytes);

    /// <summary>With <see cref="SessionNumbers"/>: the number of the session, le32; 0 before the first one.</summary>
    public static ConfigField Session { get; } = new(24, 4);

    /// <summary>With <see cref="SessionNumbers"/>: the number that the driver has acknowledged, le32.</summary>
    public static ConfigField Acknowledged { get; } = new(28, 4, IsWritable: true);

    /// <summary>Queues of a device for so many rings.</summary>
    public static int QueueCount(int rings) => FirstAuxiliaryQueue + (2 * rings) + 1;

    /// <summary>The number of the auxiliary notification that is a ring's call, or its kick.</summary>
    public static int CallOf(int ring) => 2 * ring;

    /// <summary>The number of the auxiliary notification that tells of a broken ring.</summary>
    public static int ErrorOf(int ring) => (2 * ring) + 1;

    /// <summary>The number of the auxiliary notification that a doorbell of the drafts of 2022 is: first the calls of
    /// all rings, then their errors, then the log.</summary>
    public static int SlotOfDoorbell(int doorbell, int rings) =>
        doorbell < rings ? CallOf(doorbell) : doorbell < 2 * rings ? ErrorOf(doorbell - rings) : doorbell;

    /// <summary>The doorbell of the drafts of 2022 that an auxiliary notification is.</summary>
    public static int DoorbellOf(int notification, int rings) =>
        notification == LogOf(rings) ? notification : (notification / 2) + (notification % 2 == 0 ? 0 : rings);

    /// <summary>The number of the auxiliary notification that tells of a changed log.</summary>
    public static int LogOf(int rings) => 2 * rings;
}

// The vhost-pci adapter as numbers. Its design of 2017 names the resources: two queues of messages, doorbells for each
// ring's call and error and for the log, one MSI for each ring's kick, two BARs of shared memory. Registers, layout of
// the queues, negotiation, and what happens when a side goes away it leaves open: what is here is this library's
// answer. It is a PCI device and no virtio device; its queues are split virtqueues without any ring feature.
//
//   BAR 0, 16 KiB   0x0000 registers   0x1000 doorbells, 4 bytes each   0x2000 MSI-X table   0x3000 pending bits
//   BAR 2           the memory of the peer's guest   BAR 4   the log   (both 64-bit, prefetchable; sizes are powers of
//                   two, so a window may end before its BAR does: what is behind it reads as zero)
//
//   registers       0 magic u32   4 version u32   8 features offered u64   16 features taken u64, RW until a queue runs
//                   24 status u32, RW: bit 0 driver ready, bit 1 peer connected, bit 6 needs a reset
//                   28 changes u32, counts those of the status   32 rings u32   36 reset u32, WO: any value but 0
//                   40 memory window's bytes u64   48 log window's bytes u64   56 identification, 16 bytes
//   queue q         at 128 + 64 q: 0 largest size u16   2 size u16, RW   4 enable u16, RW   8 descriptors u64, RW
//                   16 available ring u64, RW   24 used ring u64, RW. Written until the queue is enabled.
//   queues          0 from the peer to the driver, 1 from the driver to the peer
//   doorbells       0 and 1 the queues; 2 + 2i call of ring i; 3 + 2i error of ring i; 2 + 2 rings: the log
//   vectors         0 status   1 and 2 the queues   3 + i kick of ring i
//
// Messages, and how a driver becomes ready and notices the end of a connection, are those of virtio-vhost-user: what
// both have in common is written once, in VirtioVhostUserDevice, which the adapter stands in front of.
using Outboard.Virtio;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.VhostPci;

/// <summary>Numbers of the adapter.</summary>
public static class VhostPciSpec
{
    /// <summary>Vendor id: Red Hat's, of which the device ids from 0x10f0 to 0x10ff are for experiments.</summary>
    public const ushort VendorId = 0x1af4;

    /// <summary>Device id; no virtio device has it.</summary>
    public const ushort DeviceId = 0x10f0;

    /// <summary>"VPCI".</summary>
    public const uint Magic = 0x49435056;

    /// <summary>Version of the registers.</summary>
    public const uint Version = 1;

    /// <summary>Feature: an mmap offset is an offset in the window; else regions lie one behind the other.</summary>
    public const ulong ExplicitOffsets = VirtioVhostUserSpec.ExplicitOffsets;

    /// <summary>Status bit: the driver broke a rule; nothing happens until a reset.</summary>
    public const uint NeedsReset = 1 << 6;

    /// <summary>The BAR of registers, doorbells and vectors.</summary>
    public const int RegistersBar = 0;

    /// <summary>The BAR of the peer's memory.</summary>
    public const int MemoryBar = 2;

    /// <summary>The BAR of the log.</summary>
    public const int LogBar = 4;

    /// <summary>Offset of the doorbells.</summary>
    public const uint DoorbellsOffset = 0x1000;

    /// <summary>Bytes from a doorbell to the next.</summary>
    public const uint DoorbellBytes = 4;

    /// <summary>Offset of the MSI-X table.</summary>
    public const uint VectorsOffset = 0x2000;

    /// <summary>Offset of the MSI-X pending bits.</summary>
    public const uint PendingOffset = 0x3000;

    /// <summary>Bytes of BAR 0.</summary>
    public const uint RegistersBarBytes = 0x4000;

    /// <summary>Bytes of the registers.</summary>
    public const int RegisterBytes = 256;

    /// <summary>Queues of messages.</summary>
    public const int MessageQueues = 2;

    /// <summary>The vector of the status.</summary>
    public const int StatusVector = 0;

    private const int FirstQueue = 128;
    private const int QueueBytes = 64;

    /// <summary>Magic, u32.</summary>
    public static ConfigField MagicField { get; } = new(0, 4);

    /// <summary>Version, u32.</summary>
    public static ConfigField VersionField { get; } = new(4, 4);

    /// <summary>Features offered, u64.</summary>
    public static ConfigField Offered { get; } = new(8, 8);

    /// <summary>Features taken, u64.</summary>
    public static ConfigField Taken { get; } = new(16, 8, IsWritable: true);

    /// <summary>Status, u32.</summary>
    public static ConfigField Status { get; } = new(24, 4, IsWritable: true);

    /// <summary>Counts changes of the status, u32.</summary>
    public static ConfigField Changes { get; } = new(28, 4);

    /// <summary>Rings that a peer can have, u32.</summary>
    public static ConfigField Rings { get; } = new(32, 4);

    /// <summary>Resets the adapter, u32; reads as zero.</summary>
    public static ConfigField Reset { get; } = new(36, 4);

    /// <summary>Bytes of the window of memory, u64.</summary>
    public static ConfigField MemoryBytes { get; } = new(40, 8);

    /// <summary>Bytes of the window of the log, u64.</summary>
    public static ConfigField LogBytes { get; } = new(48, 8);

    /// <summary>Identification, 16 bytes.</summary>
    public static ConfigField Id { get; } = new(56, VirtioVhostUserSpec.IdBytes);

    /// <summary>Largest size of a queue, u16.</summary>
    public static ConfigField LargestSize(int queue) => new(FirstQueue + (queue * QueueBytes), 2);

    /// <summary>Size of a queue, u16.</summary>
    public static ConfigField Size(int queue) => new(FirstQueue + (queue * QueueBytes) + 2, 2, IsWritable: true);

    /// <summary>1 enables a queue, u16; only a reset ends that.</summary>
    public static ConfigField Enable(int queue) => new(FirstQueue + (queue * QueueBytes) + 4, 2, IsWritable: true);

    /// <summary>Bus address of a queue's descriptors, u64.</summary>
    public static ConfigField Descriptors(int queue) => new(FirstQueue + (queue * QueueBytes) + 8, 8, IsWritable: true);

    /// <summary>Bus address of a queue's available ring, u64.</summary>
    public static ConfigField Available(int queue) => new(FirstQueue + (queue * QueueBytes) + 16, 8, IsWritable: true);

    /// <summary>Bus address of a queue's used ring, u64.</summary>
    public static ConfigField Used(int queue) => new(FirstQueue + (queue * QueueBytes) + 24, 8, IsWritable: true);

    /// <summary>The offset of a doorbell in BAR 0.</summary>
    public static uint DoorbellOf(int number) => DoorbellsOffset + ((uint)number * DoorbellBytes);

    /// <summary>The vector of a ring's kick.</summary>
    public static int KickVector(int ring) => 1 + MessageQueues + ring;

    /// <summary>Vectors of an adapter with so many rings.</summary>
    public static int VectorCount(int rings) => KickVector(rings);
}

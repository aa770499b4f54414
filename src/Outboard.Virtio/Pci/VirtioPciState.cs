// The state of a virtio function as records, see State/DeviceStateFormat:
//
//   "pcfg" configuration space of PCI          "conf" configuration space of the device
//   "msix" MSI-X table, if there is one
//   "stat" device status   "isr " ISR          "cvec" configuration vector   "drvf" features of the driver
//   "dfsl" "drsl" "qsel"   what the driver has selected                      "dev " the device's own state
//   four hexadecimal digits: the queue of this index: 0 size u32, 4 vector u16, 6 flags u16 (1 enabled, 2 has a base),
//   8 base u32, 12 zero u32, 16 descriptors u64, 24 driver area u64, 32 device area u64
//
// Everything is checked before anything is changed. Of the two configuration spaces only what a guest may write is
// taken over; the rest describes this device, and where that differs the driver is told of a change.
using System.Buffers.Binary;
using System.Globalization;
using System.Numerics;
using Outboard.Pci.Interrupts;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Virtio.Pci;

public sealed partial class VirtioPciFunction
{
    /// <summary>Saves and loads the state of a function that is stopped.</summary>
    private static class VirtioPciState
    {
        private const int QueueBytes = 40;
        private const int MostDeviceBytes = DeviceStateFormat.MaxBytes;
        private const ushort EnabledFlag = 1;
        private const ushort BaseFlag = 2;
        private const VirtioStatus KnownStatus = DriverBits | VirtioStatus.DeviceNeedsReset;

        internal static byte[] Save(VirtioPciFunction function, VirtioDevice device)
        {
            DeviceStateWriter writer = new(device.Id);
            byte[] config = new byte[device.Config.SizeBytes];
            device.Config.Read(0, config);
            writer.Write("pcfg", function.Config.Save());
            if (TableOf(function) is { } table)
            {
                writer.Write("msix", table.Save());
            }

            writer.Write("conf", config);
            writer.Write("stat", (ulong)function.Status);
            writer.Write("isr ", (ulong)Volatile.Read(ref function._isr));
            writer.Write("cvec", function._configVector);
            writer.Write("drvf", function._driverFeatures);
            writer.Write("dfsl", function._deviceFeatureSelect);
            writer.Write("drsl", function._driverFeatureSelect);
            writer.Write("qsel", function._queueSelect);
            foreach (PciQueue queue in function._queues)
            {
                writer.Write(NameOf(queue), Describe(queue));
            }

            writer.Write("dev ", device.SaveState());
            return writer.Finish();
        }

        internal static void Load(VirtioPciFunction function, VirtioDevice device, ReadOnlySpan<byte> stream)
        {
            DeviceStateReader reader = new(device.Id, stream);
            ReadOnlyMemory<byte> pci = Exactly(reader, "pcfg", function.Config.SizeBytes);
            ReadOnlyMemory<byte> table =
                TableOf(function) is { } expected ? Exactly(reader, "msix", expected.SavedBytes) : default;
            ReadOnlyMemory<byte> config = Exactly(reader, "conf", device.Config.SizeBytes);
            VirtioStatus status = (VirtioStatus)reader.ReadNumber("stat", byte.MaxValue);
            ulong features = reader.ReadNumber("drvf");
            ulong isr = reader.ReadNumber("isr ", VirtioPci.IsrQueue | VirtioPci.IsrConfigChange);
            ushort vector = (ushort)reader.ReadNumber("cvec", ushort.MaxValue);
            uint deviceSelect = (uint)reader.ReadNumber("dfsl", uint.MaxValue);
            uint driverSelect = (uint)reader.ReadNumber("drsl", uint.MaxValue);
            ushort queueSelect = (ushort)reader.ReadNumber("qsel", ushort.MaxValue);
            bool isAgreed = status.HasFlag(VirtioStatus.FeaturesOk);
            Require((status & ~KnownStatus) == 0, "stat", (ulong)status);
            Require(!isAgreed || (features & ~function._offeredFeatures) == 0, "drvf", features);
            ReadOnlyMemory<byte>[] queues =
                [.. function._queues.Select(queue => Exactly(reader, NameOf(queue), QueueBytes))];
            bool isPacked = (features & VirtioFeatures.RingPacked) != 0;
            foreach (PciQueue queue in function._queues)
            {
                RequireQueue(queue, queues[queue.Index].Span, isAgreed, isPacked);
            }

            ReadOnlyMemory<byte> own = reader.ReadBytes("dev ", MostDeviceBytes);
            reader.RequireAllRead();

            // From here on nothing fails but the device's own part, which comes first and changes nothing if it does.
            device.LoadState(own.Span);
            if (isAgreed)
            {
                device.AcceptFeatures(features);
            }

            TakeConfig(function, device, config.Span);
            function.Config.Write(0, pci.Span);
            TableOf(function)?.Load(table.Span);
            function._usesMsix = function.Interrupts.IsMsixEnabled;
            function._driverFeatures = features;
            function._deviceFeatureSelect = deviceSelect;
            function._driverFeatureSelect = driverSelect;
            function._queueSelect = queueSelect;
            function._configVector = function.Vector(vector);
            Interlocked.Exchange(ref function._status, (int)status);
            Interlocked.Exchange(ref function._isr, (int)isr);
            foreach (PciQueue queue in function._queues)
            {
                Take(function, queue, queues[queue.Index].Span);
            }
        }

        private static MsixTable? TableOf(VirtioPciFunction function) => function.Interrupts.Msix?.Table;

        private static string NameOf(PciQueue queue) => queue.Index.ToString("x4", CultureInfo.InvariantCulture);

        private static ReadOnlyMemory<byte> Exactly(DeviceStateReader reader, string name, int bytes) =>
            reader.TryRead(name, bytes, out ReadOnlyMemory<byte> record)
                ? record
                : throw new DeviceStateException($"record '{name}' is missing");

        private static byte[] Describe(PciQueue queue)
        {
            byte[] record = new byte[QueueBytes];
            int flags = (queue.IsEnabled ? EnabledFlag : 0) | (queue.Base is null ? 0 : BaseFlag);
            BinaryPrimitives.WriteInt32LittleEndian(record, queue.Size);
            BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(4), queue.Vector);
            BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(6), (ushort)flags);
            BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), queue.Base ?? 0);
            BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(16), queue.Descriptors);
            BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(24), queue.Driver);
            BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(32), queue.Device);
            return record;
        }

        private static void RequireQueue(PciQueue queue, ReadOnlySpan<byte> record, bool isAgreed, bool isPacked)
        {
            uint size = BinaryPrimitives.ReadUInt32LittleEndian(record);
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(record[6..]);
            bool isEnabled = (flags & EnabledFlag) != 0;
            Require(size > 0 && size <= (uint)queue.MaxSize, "size", size);
            Require(!isEnabled || isPacked || BitOperations.IsPow2(size), "size", size);
            Require((flags & ~(EnabledFlag | BaseFlag)) == 0 && (!isEnabled || isAgreed), "flags", flags);
        }

        private static void Take(VirtioPciFunction function, PciQueue queue, ReadOnlySpan<byte> record)
        {
            ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(record[6..]);
            queue.Size = BinaryPrimitives.ReadInt32LittleEndian(record);
            queue.Vector = function.Vector(BinaryPrimitives.ReadUInt16LittleEndian(record[4..]));
            queue.IsEnabled = (flags & EnabledFlag) != 0;
            queue.Base = (flags & BaseFlag) != 0 ? BinaryPrimitives.ReadUInt32LittleEndian(record[8..]) : null;
            queue.Descriptors = BinaryPrimitives.ReadUInt64LittleEndian(record[16..]);
            queue.Driver = BinaryPrimitives.ReadUInt64LittleEndian(record[24..]);
            queue.Device = BinaryPrimitives.ReadUInt64LittleEndian(record[32..]);
        }

        /// <summary>Writes as the driver did, and sees whether that makes it what the driver knows.</summary>
        private static void TakeConfig(VirtioPciFunction function, VirtioDevice device, ReadOnlySpan<byte> known)
        {
            byte[] here = new byte[known.Length];
            for (int i = 0; i < known.Length; i++)
            {
                device.Config.Read(0, here);
                if (here[i] != known[i])
                {
                    device.WriteConfig((uint)i, known.Slice(i, 1));
                }
            }

            device.Config.Read(0, here);
            function._owesConfigChange |= !known.SequenceEqual(here);
        }

        private static void Require(bool condition, string field, ulong value)
        {
            if (!condition)
            {
                throw new DeviceStateException($"{field}: 0x{value:x} does not suit this function");
            }
        }
    }
}

// Identify: 4096 bytes about the controller, a namespace, or lists of namespaces. Offsets are those of the
// specification's figures; whatever is not set is zero, which means "not supported" or "not reported".
using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

internal sealed partial class AdminQueue
{
    private const int IdentifyBytes = 4096;
    private const uint Broadcast = uint.MaxValue;

    private Task<(NvmeStatus Status, uint Result)> IdentifyAsync(NvmeCommand command)
    {
        NvmeIdentify what = (NvmeIdentify)(byte)command.Word10;
        byte commandSet = (byte)(command.Word11 >> 24);
        byte[] data = new byte[IdentifyBytes];
        NvmeStatus status = what switch
        {
            NvmeIdentify.Controller => DescribeController(data),
            NvmeIdentify.Namespace => DescribeNamespace(data, command.Namespace),
            NvmeIdentify.ActiveNamespaces => ListNamespaces(data, command.Namespace),
            NvmeIdentify.NamespaceDescriptors => DescribeIdentity(data, command.Namespace),

            // the NVM command set has nothing here that would be other than zero
            NvmeIdentify.CommandSetNamespace when commandSet == 0 =>
                IsActive(command.Namespace) ? NvmeStatus.Success : NvmeStatus.InvalidNamespace,
            NvmeIdentify.CommandSetController when commandSet == 0 => NvmeStatus.Success,
            _ => NvmeStatus.InvalidField,
        };
        return status == NvmeStatus.Success ? SendAsync(command, data) : Done(status);
    }

    private bool IsActive(uint number) => number - 1 < (uint)_controller.Namespaces.Count;

    private NvmeStatus DescribeController(Span<byte> data)
    {
        NvmeOptions options = _controller.Options;
        Put16(data, 0, _controller.Config.Get16(0));
        Put16(data, 2, _controller.Config.Get16(0x2c));
        PutText(data.Slice(4, NvmeOptions.SerialBytes), options.Serial);
        PutText(data.Slice(24, NvmeOptions.ModelBytes), options.Model);
        PutText(data.Slice(64, 8), "1.0");
        data[72] = 6; // recommended arbitration burst: 64 commands
        data[77] = DataPointer.MaxTransferPagesShift;
        Put32(data, 80, NvmeRegister.Version14);
        Put32(data, 92, EventLog.NamespaceNotices);
        data[111] = 1; // an I/O controller
        Put16(data, 256, (ushort)(_controller.OffersShadowDoorbells ? 1 << 8 : 0));
        data[258] = 3; // aborts at a time, from 0
        data[259] = MaxEventRequests - 1;
        data[260] = 3; // one firmware slot, read-only
        data[261] = 6; // commands supported and effects; offsets in log pages
        data[262] = ErrorLog.Entries - 1;
        Put16(data, 266, 343); // warning and critical temperature, in kelvin
        Put16(data, 268, 373);
        data[512] = 0x66; // entries of 64 bytes
        data[513] = 0x44; // entries of 16 bytes
        Put32(data, 516, (uint)_controller.Namespaces.Count);
        const int compare = 1 << 0, manage = 1 << 2, writeZeroes = 1 << 3, select = 1 << 4;
        Put16(data, 520, compare | manage | writeZeroes | select);
        data[525] = 7; // a volatile write cache; a flush may name all namespaces
        const uint sgl = 1, longerSgl = 1 << 18;
        Put32(data, 536, sgl | longerSgl);
        string name = new Guid(NvmeNamespace.Uuid(options.Serial, 0), bigEndian: true)
            .ToString("D", CultureInfo.InvariantCulture);
        Encoding.ASCII.GetBytes($"nqn.2014-08.org.nvmexpress:uuid:{name}", data.Slice(768, 256));
        Put16(data, 2048, 2500); // power state 0: 25 W
        return NvmeStatus.Success;
    }

    private NvmeStatus DescribeNamespace(Span<byte> data, uint number)
    {
        if (!IsActive(number) && number != Broadcast)
        {
            return NvmeStatus.InvalidNamespace;
        }

        // What all namespaces have in common is asked for by the broadcast number: the format, of the first.
        NvmeNamespace place = _controller.Namespaces[number == Broadcast ? 0 : (int)number - 1];
        ulong blocks = number == Broadcast ? 0 : (ulong)place.BlockCount;
        Put64(data, 0, blocks);
        Put64(data, 8, blocks);
        Put64(data, 16, blocks);
        int granule = Math.Max(place.Disk.PhysicalBlockSize, place.BlockSize) / place.BlockSize;
        data[24] = 1 << 4; // the sizes below are there
        data[33] = 1 | (1 << 3); // deallocated blocks read as zero, also those deallocated by write zeroes
        Put16(data, 64, (ushort)(granule - 1)); // preferred write granularity and alignment
        Put16(data, 66, (ushort)(granule - 1));
        Put16(data, 68, (ushort)(granule - 1)); // preferred deallocate granularity and alignment
        Put16(data, 70, (ushort)(granule - 1));
        data[99] = (byte)(place.IsReadOnly ? 1 : 0);
        data[130] = (byte)place.BlockShift;
        if (number != Broadcast)
        {
            Uuid(number).CopyTo(data[104..]);
        }

        return NvmeStatus.Success;
    }

    private NvmeStatus ListNamespaces(Span<byte> data, uint after)
    {
        if (after >= uint.MaxValue - 1)
        {
            return NvmeStatus.InvalidNamespace;
        }

        int count = 0;
        for (uint number = after + 1; number <= (uint)_controller.Namespaces.Count; number++)
        {
            Put32(data, count++ * sizeof(uint), number);
        }

        return NvmeStatus.Success;
    }

    /// <summary>Descriptors: type u8, length u8, 2 reserved, then the identity.</summary>
    private NvmeStatus DescribeIdentity(Span<byte> data, uint number)
    {
        if (!IsActive(number))
        {
            return NvmeStatus.InvalidNamespace;
        }

        const byte globalIdentity = 2, uuid = 3, commandSet = 4;
        foreach (byte kind in (ReadOnlySpan<byte>)[globalIdentity, uuid])
        {
            data[0] = kind;
            data[1] = 16;
            Uuid(number).CopyTo(data[4..]);
            data = data[20..];
        }

        data[0] = commandSet;
        data[1] = 1;
        return NvmeStatus.Success;
    }

    private byte[] Uuid(uint number) => NvmeNamespace.Uuid(_controller.Options.Serial, number);

    private static void PutText(Span<byte> target, string text)
    {
        target.Fill((byte)' ');
        Encoding.ASCII.GetBytes(text, target);
    }

    private static void Put16(Span<byte> data, int offset, ushort value) =>
        BinaryPrimitives.WriteUInt16LittleEndian(data[offset..], value);

    private static void Put32(Span<byte> data, int offset, uint value) =>
        BinaryPrimitives.WriteUInt32LittleEndian(data[offset..], value);

    private static void Put64(Span<byte> data, int offset, ulong value) =>
        BinaryPrimitives.WriteUInt64LittleEndian(data[offset..], value);
}

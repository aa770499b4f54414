// Log pages: errors, health, firmware, changed namespaces, commands supported and effects. A page is made when it is
// asked for; a part of it is sent.
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

internal sealed partial class AdminQueue
{
    private const int HealthBytes = 512;
    private const int FirmwareBytes = 512;
    private const int ListBytes = 4096;
    private const int EffectsBytes = 4096;

    /// <summary>The unit of the data that was read and written.</summary>
    private const long DataUnitBytes = 512_000;

    private Task<(NvmeStatus Status, uint Result)> GetLogPageAsync(NvmeCommand command)
    {
        NvmeLogPage page = (NvmeLogPage)(byte)command.Word10;
        bool keepsEvent = (command.Word10 & (1 << 15)) != 0;
        ulong length = (((command.Word10 >> 16) | ((ulong)(command.Word11 & 0xffff) << 16)) + 1) * sizeof(uint);
        ulong offset = command.Word12 | ((ulong)command.Word13 << 32);
        byte[]? data = MakePage(page, command.Namespace, offset);
        if (data is null)
        {
            return Done(NvmeStatus.InvalidLogPage);
        }

        if (offset % sizeof(uint) != 0 || offset > (ulong)data.Length || length > DataPointer.MaxTransferBytes)
        {
            return Done(NvmeStatus.InvalidField);
        }

        if (!keepsEvent)
        {
            _controller.Events.OnLogRead(page);
        }

        // what is asked for beyond the page's end reads as zero
        byte[] part = new byte[(int)length];
        data.AsSpan((int)offset, Math.Min(part.Length, data.Length - (int)offset)).CopyTo(part);
        return SendAsync(command, part);
    }

    private byte[]? MakePage(NvmeLogPage page, uint number, ulong offset)
    {
        byte[] data;
        switch (page)
        {
            case NvmeLogPage.Errors:
                data = new byte[ErrorLog.Entries * ErrorLog.EntryBytes];
                _controller.Errors.Write(data);
                return data;
            case NvmeLogPage.Health when number is 0 or Broadcast:
                return MakeHealth();
            case NvmeLogPage.Firmware:
                data = new byte[FirmwareBytes];
                data[0] = 1; // slot 1 is active
                PutText(data.AsSpan(8, 8), "1.0");
                return data;
            case NvmeLogPage.ChangedNamespaces:
                data = new byte[ListBytes];
                uint[] changed = offset == 0 ? _controller.Events.TakeChanged() : [];
                for (int i = 0; i < changed.Length; i++)
                {
                    Put32(data, i * sizeof(uint), changed[i]);
                }

                return data;
            case NvmeLogPage.CommandEffects:
                return MakeEffects();
            default:
                return null;
        }
    }

    private byte[] MakeHealth()
    {
        NvmeCounters sum = _controller.SumCounters();
        byte[] data = new byte[HealthBytes];
        Put16(data, 1, 298); // composite temperature in kelvin: that of a room
        data[3] = 100; // spare, in percent
        data[4] = 10;
        Put64(data, 32, Units(sum.BytesRead));
        Put64(data, 48, Units(sum.BytesWritten));
        Put64(data, 64, (ulong)sum.Reads);
        Put64(data, 80, (ulong)sum.Writes);
        Put64(data, 112, 1); // power cycles
        Put64(data, 128, (ulong)_controller.PoweredOn.TotalHours);
        Put64(data, 160, (ulong)sum.MediaErrors);
        Put64(data, 176, _controller.Errors.Count);
        return data;
    }

    private static ulong Units(long bytes) => (ulong)((bytes + DataUnitBytes - 1) / DataUnitBytes);

    /// <summary>A word for each opcode: admin commands, then I/O commands.</summary>
    private byte[] MakeEffects()
    {
        const uint supported = 1, changesData = 2;
        byte[] data = new byte[EffectsBytes];
        foreach (NvmeAdminOpcode opcode in Enum.GetValues<NvmeAdminOpcode>())
        {
            bool isOffered = opcode != NvmeAdminOpcode.DoorbellBufferConfig || _controller.OffersShadowDoorbells;
            Put32(data, (byte)opcode * sizeof(uint), isOffered ? supported : 0);
        }

        foreach (NvmeIoOpcode opcode in Enum.GetValues<NvmeIoOpcode>())
        {
            bool changes = opcode is NvmeIoOpcode.Write or NvmeIoOpcode.WriteZeroes or NvmeIoOpcode.DatasetManagement;
            Put32(data, 1024 + ((byte)opcode * sizeof(uint)), changes ? supported | changesData : supported);
        }

        return data;
    }
}

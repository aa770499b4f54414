#:project ../src/Outboard.VfioUser/Outboard.VfioUser.csproj
// A PCI card that copies memory: it reads and writes the guest's (DMA), and interrupts (MSI-X) when it is done. BAR 0:
//   0 source address u64   8 destination address u64   16 bytes u32, up to 64 KiB
//   20 command u32: a write starts a copy; reads 1 while it lasts, then 0, or a negative error number
using System.Buffers.Binary;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Dma;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Server;

await VfioUserServer.ServeAsync(new CopyCard(), args[0]);

internal sealed class CopyCard : PciFunction
{
    private const int Source = 0, Destination = 8, Length = 16, Command = 20, Bytes = 24;
    private readonly byte[] _registers = new byte[Bytes];

    public CopyCard()
        : base(new PciIdentity(0x494f, 0xd0a0) { ClassCode = 0x088000 })
    {
        AddBar(new PciBar(0, PciBarKind.Memory32, 4096));
        AddBar(new PciBar(1, PciBarKind.Memory32, 4096));
        AddCapability(new MsixCapability(1, 1, 0, 2048)); // one vector: its table and pending bits in BAR 1
    }

    protected override void ReadBar(int bar, ulong offset, Span<byte> data)
    {
        data.Clear();
        if (bar == 0 && offset + (ulong)data.Length <= Bytes)
        {
            _registers.AsSpan((int)offset, data.Length).CopyTo(data);
        }
    }

    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> data)
    {
        if (bar == 0 && offset + (ulong)data.Length <= Bytes)
        {
            data.CopyTo(_registers.AsSpan((int)offset));
            if (offset == Command)
            {
                BinaryPrimitives.WriteInt32LittleEndian(_registers.AsSpan(Command), 1);
                _ = Task.Run(CopyAsync); // the driver goes on meanwhile
            }
        }

        return default;
    }

    private async Task CopyAsync()
    {
        int result = 0;
        try
        {
            byte[] data = new byte[Math.Min(BitConverter.ToUInt32(_registers, Length), 65536)];
            await Dma.ReadAsync(BitConverter.ToUInt64(_registers, Source), data);
            await Dma.WriteAsync(BitConverter.ToUInt64(_registers, Destination), data);
        }
        catch (DmaException error)
        {
            result = -error.Errno; // no such guest memory
        }

        BinaryPrimitives.WriteInt32LittleEndian(_registers.AsSpan(Command), result);
        Interrupts[InterruptKind.Msix].Trigger(0);
    }
}

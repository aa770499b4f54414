#:project ../src/Outboard.VfioUser/Outboard.VfioUser.csproj
// A whole PCI card: 16 digital outputs and, wired to them, 16 inputs that interrupt when they change. Linux drives it
// with its stock driver gpio-pci-idio-16: QEMU gets it by a device "vfio-user-pci" with this program's socket.
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Server;

await VfioUserServer.ServeAsync(new GpioCard(), args[0]);

internal sealed class GpioCard : PciFunction
{
    private const int OutputsLow = 0, InputsLow = 1, InterruptControl = 2, OutputsHigh = 4, Status = 6;
    private readonly byte[] _registers = new byte[256];
    private bool _interrupts;

    public GpioCard()
        : base(new PciIdentity(0x494f, 0x0dc8) { ClassCode = 0xff0000 })
    {
        AddBar(new PciBar(2, PciBarKind.Io, 256));
        AddInterruptPin();
    }

    protected override void ReadBar(int bar, ulong offset, Span<byte> data)
    {
        _interrupts |= offset == InterruptControl; // a read enables, a write disables
        _registers.AsSpan((int)offset, data.Length).CopyTo(data);
    }

    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> data)
    {
        switch (offset)
        {
            case OutputsLow or OutputsHigh:
                bool changes = _registers[offset] != data[0];
                _registers[offset] = _registers[offset + 1] = data[0];
                Interrupt((changes && _interrupts) || _registers[Status] != 0);
                break;
            case InputsLow: // acknowledges
                Interrupt(false);
                break;
            case InterruptControl:
                _interrupts = false;
                break;
        }

        return default;
    }

    private void Interrupt(bool isAsserted)
    {
        _registers[Status] = (byte)(isAsserted ? 7 : 0);
        Interrupts.SetPin(isAsserted);
    }
}

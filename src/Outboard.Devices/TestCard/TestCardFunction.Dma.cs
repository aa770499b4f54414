// The DMA engine of the test card: between guest memory and BAR2, one transfer at a time.
using Outboard.Linux;
using Outboard.Pci.Dma;

namespace Outboard.Devices.TestCard;

public sealed partial class TestCardFunction
{
    private const uint ReadsGuest = 1;
    private const uint WritesGuest = 2;
    private const uint ByMessages = 1 << 8;
    private const uint Running = uint.MaxValue;

    /// <summary>Counts transfers and resets: a transfer that ends after a reset says nothing.</summary>
    private int _transfer;

    private ValueTask Transfer(uint command)
    {
        ulong address;
        uint length;
        uint buffer;
        int transfer;
        lock (_lock)
        {
            if (Get32(TestCardRegister.DmaStatus) == Running)
            {
                return default;
            }

            transfer = ++_transfer;
            address = Get64(TestCardRegister.DmaAddress);
            length = Get32(TestCardRegister.DmaLength);
            buffer = Get32(TestCardRegister.DmaBuffer);
            bool isKnown = (command & ~ByMessages) is ReadsGuest or WritesGuest;
            bool isInside = length is > 0 and <= BufferBytes && buffer <= BufferBytes - length;
            Put32(TestCardRegister.DmaStatus, isKnown && isInside ? Running : Errno.InvalidArgument);
            if (!isKnown || !isInside)
            {
                return default;
            }
        }

        if (!_transfersLater)
        {
            return MoveAsync(command, address, buffer, (int)length, transfer);
        }

        _ = Task.Run(
            async () => await MoveAsync(command, address, buffer, (int)length, transfer).ConfigureAwait(false));
        return default;
    }

    private async ValueTask MoveAsync(uint command, ulong address, uint buffer, int length, int transfer)
    {
        DmaRoute route = (command & ByMessages) != 0 ? DmaRoute.Messages : DmaRoute.Automatic;
        uint status = 0;
        try
        {
            byte[] bytes = new byte[length];
            if ((command & WritesGuest) != 0)
            {
                _buffer.Window.Slice(buffer, (uint)length).Span.CopyTo(bytes);
                await Dma.WriteAsync(address, bytes, route).ConfigureAwait(false);
            }
            else
            {
                await Dma.ReadAsync(address, bytes, route).ConfigureAwait(false);
                bytes.CopyTo(_buffer.Window.Slice(buffer, (uint)length).Span);
            }
        }
        catch (DmaException error)
        {
            status = (uint)error.Errno;
        }

        lock (_lock)
        {
            if (_transfer == transfer)
            {
                Put32(TestCardRegister.DmaStatus, status);
            }
        }
    }
}

// A disk as front-ends use it, connection after connection: what the one wrote the next finds.
using Outboard.Devices.Block.Driver;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

internal sealed class FrontendDisk
{
    private const ulong Place = 4096;
    private const int TransferBytes = 64 << 10;
    private readonly byte[] _data = new byte[300 << 10];
    private bool _isWritten;

    /// <summary>Writes by the first queue and reads by the second one, whose memory the front-end has told.</summary>
    public async Task UseAsync(VhostUserFrontend frontend, DriverMemory first, DriverMemory second)
    {
        using FrontendQueue writes = await frontend.StartQueueAsync(0, 64, first);
        using FrontendQueue reads = await frontend.StartQueueAsync(1, 64, second);
        BlockDriver writer = new(writes, 4, TransferBytes);
        BlockDriver reader = new(reads, 4, TransferBytes);
        byte[] found = new byte[_data.Length];
        if (_isWritten)
        {
            reader.Read(Place, found);
            Assert.Equal(_data, found);
        }

        Random.Shared.NextBytes(_data);
        writer.Write(Place, _data);
        writer.Flush();
        reader.Read(Place, found);
        Assert.Equal(_data, found);
        _isWritten = true;
        await frontend.StopQueueAsync(writes);
        await frontend.StopQueueAsync(reads);
    }
}

// What the tests of the program ask a block back-end: its capacity, and a read.
using System.Buffers.Binary;
using Outboard.VhostUser.Frontend;
using Outboard.Tests.VhostUser;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Cli;

internal static class BlockFrontend
{
    private const int HeaderBytes = 16;
    private const int SectorBytes = 512;

    /// <summary>The size that the configuration space tells.</summary>
    public static async Task<long> SizeBytesAsync(VhostUserFrontend frontend)
    {
        byte[] capacity = await frontend.GetConfigAsync(0, sizeof(ulong));
        return (long)BinaryPrimitives.ReadUInt64LittleEndian(capacity) * SectorBytes;
    }

    /// <summary>Connects, asks the size, leaves.</summary>
    public static async Task<long> SizeBytesAsync(string socketPath)
    {
        await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(socketPath);
        return await SizeBytesAsync(frontend);
    }

    /// <summary>Makes a read of the first sector available, and does not wait for it.</summary>
    public static void SubmitRead(FrontendQueue queue, DriverMemory memory)
    {
        DriverBuffer header = memory.Allocate(HeaderBytes);
        header.Span.Clear();
        DriverBuffer data = memory.Allocate(SectorBytes);
        DriverBuffer status = memory.Allocate(1);
        queue.Ring.TryAdd([header], [data, status], token: 1);
        queue.Submit();
    }

    /// <summary>Asks for the disk's name, which no disk has to be asked for. What was submitted before has been taken
    /// when the answer is there.</summary>
    public static async Task IdentifyAsync(FrontendQueue queue, DriverMemory memory)
    {
        const int nameBytes = 20;
        DriverBuffer header = memory.Allocate(HeaderBytes);
        header.Span.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(header.Span, (uint)BlockRequestType.GetId);
        queue.Ring.TryAdd([header], [memory.Allocate(nameBytes), memory.Allocate(1)], token: 2);
        queue.Submit();
        uint token = 0;
        await Eventually.TrueAsync(() => queue.Ring.TryCollect(out token, out _), "the name");
        Assert.Equal(2u, token);
    }
}

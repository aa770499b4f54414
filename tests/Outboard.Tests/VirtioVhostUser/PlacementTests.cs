// Where things lie in a region: the plan's arithmetic, and the property that counts: whatever a driver's dialect of
// computing addresses, it finds each region where the device has put it.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class WindowPlanTests
{
    [Fact]
    public void Places_never_overlap_and_come_back()
    {
        Random random = new(11);
        const ulong size = 64 << 20;
        WindowPlan plan = new(size);
        Dictionary<ulong, ulong> placed = [];
        for (int step = 0; step < 5000; step++)
        {
            if (random.Next(2) == 0 && placed.Count > 0)
            {
                ulong gone = placed.Keys.ElementAt(random.Next(placed.Count));
                plan.Free(gone);
                placed.Remove(gone);
                continue;
            }

            ulong length = (ulong)random.Next(1, 2000) * 4096;
            if (plan.TryPlace(length) is not { } offset)
            {
                continue;
            }

            Assert.True(offset + length <= size);
            Assert.Equal(0UL, offset % (length >= WindowPlan.HugePageBytes ? WindowPlan.HugePageBytes : 4096));
            Assert.DoesNotContain(placed, known => offset < known.Key + known.Value && known.Key < offset + length);
            placed.Add(offset, length);
        }

        foreach (ulong offset in placed.Keys)
        {
            plan.Free(offset);
        }

        Assert.True(plan.IsEmpty);
        Assert.Equal(0UL, plan.TryPlace(size));
        Assert.Null(plan.TryPlace(4096));
    }

    [Theory]
    [InlineData(0, 0, false)]
    [InlineData(0, 4096, true)]
    [InlineData(61440, 4096, true)]
    [InlineData(61440, 8192, false)]
    [InlineData(65536, 4096, false)]
    [InlineData(ulong.MaxValue, 4096, false)]
    [InlineData(8192, ulong.MaxValue, false)]
    [InlineData(12288, 4096, false)]
    public void A_certain_place_is_checked(ulong offset, ulong length, bool isFree)
    {
        WindowPlan plan = new(65536);
        Assert.True(plan.TryPlaceAt(12288, 8192));
        Assert.Equal(isFree, plan.TryPlaceAt(offset, length));
    }
}

public abstract class PlacementTests : DeviceTest
{
    private const int Page = 4096;

    /// <summary>The dialects of drivers that can work with the device as it is negotiated.</summary>
    private protected abstract IEnumerable<Func<MemoryRegionPayload[], ulong[]>> Dialects { get; }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Every_dialect_finds_every_region(int seed)
    {
        Random random = new(seed);
        using WirePeer peer = await NegotiateAsync();
        using SharedMemory window = Rig.Access.OpenWindow(VirtioVhostUserSpec.MemoryWindow)!;
        using MemoryMapping view = window.Map(0, window.SizeBytes);
        for (int table = 0; table < 8; table++)
        {
            (byte[] payload, FileDescriptor[] files) = Make(random, out byte[] marks);
            DriverFrame frame = await PassAsync(peer, FrontendRequest.SetMemTable, payload, files);
            MemoryRegionPayload[] told = MemoryMarshal
                .Cast<byte, MemoryRegionPayload>(frame.Payload.Span[MemoryTablePayload.Bytes..]).ToArray();
            foreach (Func<MemoryRegionPayload[], ulong[]> dialect in Dialects)
            {
                ulong[] places = dialect(told);
                for (int i = 0; i < told.Length; i++)
                {
                    Assert.Equal(marks[i], view.Segment.Slice((long)places[i], 1).Span[0]);
                    long last = (long)(places[i] + told[i].SizeBytes - 1);
                    Assert.Equal(marks[i], view.Segment.Slice(last, 1).Span[0]);
                }
            }

            await AcknowledgeAsync(peer, FrontendRequest.SetMemTable);
            Array.ForEach(files, file => file.Dispose());
        }
    }

    private static (byte[] Payload, FileDescriptor[] Files) Make(Random random, out byte[] marks)
    {
        int count = random.Next(1, 9);
        marks = new byte[count];
        List<byte> payload = [.. WirePeer.Bytes(new MemoryTablePayload((uint)count, 0))];
        FileDescriptor[] files = new FileDescriptor[count];
        for (int i = 0; i < count; i++)
        {
            marks[i] = (byte)random.Next(1, 256);
            ulong offset = (ulong)random.Next(5) * Page;
            ulong size = (ulong)random.Next(1, 900) * Page;
            files[i] = MemFd.Create("outboard-table", offset + size);
            MemFd.Write(files[i], offset, [marks[i]]);
            MemFd.Write(files[i], offset + size - 1, [marks[i]]);
            payload.AddRange(WirePeer.Bytes(
                new MemoryRegionPayload((ulong)i << 32, size, 0x10_0000_0000 + ((ulong)i << 32), offset)));
        }

        return ([.. payload], files);
    }
}

/// <summary>Offsets in the region, as this library's driver takes them.</summary>
public class ExplicitPlacementTests : PlacementTests
{
    private protected override IEnumerable<Func<MemoryRegionPayload[], ulong[]>> Dialects =>
        [table => [.. table.Select(region => region.MmapOffset)]];
}

/// <summary>The two dialects of the drafts: both find the regions one behind the other.</summary>
public class PlainPlacementTests : PlacementTests
{
    private protected override ulong DriverFeatures => ApplianceRig.PlainFeatures;

    private protected override IEnumerable<Func<MemoryRegionPayload[], ulong[]>> Dialects =>
        [SumOfSizes, SumOfOffsetsAndSizes];

    [Fact]
    public async Task Slots_and_the_record_are_hidden_from_a_plain_driver()
    {
        using WirePeer peer = await NegotiateAsync();
        byte[] refusal = await peer.AskAsync(FrontendRequest.GetInflightFd, new byte[InflightPayload.Bytes]);
        Assert.All(refusal, value => Assert.Equal(0, value));
        await peer.SendAsync(FrontendRequest.GetMaxMemSlots, WirePeer.NoReply, []);
        await peer.ExpectClosedAsync();
    }

    private static ulong[] SumOfSizes(MemoryRegionPayload[] table)
    {
        ulong sum = 0;
        return [.. table.Select(region => (sum += region.SizeBytes) - region.SizeBytes)];
    }

    private static ulong[] SumOfOffsetsAndSizes(MemoryRegionPayload[] table)
    {
        ulong sum = 0;
        List<ulong> places = [];
        foreach (MemoryRegionPayload region in table)
        {
            places.Add(sum + region.MmapOffset);
            sum += region.MmapOffset + region.SizeBytes;
        }

        return [.. places];
    }
}

// How long a change of guest memory takes, whatever its size. No test of anything; run by hand in Release:
//   dotnet run -c Release --project tests/Outboard.Tests -- --explicit only --show-live-output on
//     --filter-class Outboard.Tests.VhostUser.MemoryTableMeasurements
using System.Diagnostics;
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class MemoryTableMeasurements(ITestOutputHelper output) : BackendTest
{
    private const ulong GiB = 1UL << 30;
    private const int Rounds = 21;

    [Fact(Explicit = true)]
    public async Task Sixty_four_GiB_while_a_ring_runs()
    {
        FileDescriptor file = Rig.MemoryFile(64 * GiB);
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await MeasureAsync("SET_MEM_TABLE, 7 regions, 64 GiB", () => SetTableAsync(peer, ring.Memory, file));
        SingleMemoryRegionPayload slot = new(0, new MemoryRegionPayload(1UL << 44, 64 * GiB, 1UL << 44, 0));
        List<double> removals = [];
        await MeasureAsync(
            "ADD_MEM_REG, 64 GiB",
            () => peer.DoAsync(FrontendRequest.AddMemReg, slot, file),
            async () =>
            {
                long start = Stopwatch.GetTimestamp();
                await peer.DoAsync(FrontendRequest.RemMemReg, slot);
                removals.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            });
        Tell("REM_MEM_REG, 64 GiB", removals);
        ring.Submit();
        await ring.ExpectUsedAsync();
    }

    /// <summary>Seven parts of the large memory, and the one that holds the ring.</summary>
    private static Task SetTableAsync(WirePeer peer, DriverMemory memory, FileDescriptor file)
    {
        List<byte> payload = [.. WirePeer.Bytes(new MemoryTablePayload(8, 0))];
        payload.AddRange(WirePeer.Bytes(RawRing.Describe(memory).Region));
        ulong offset = 0;
        for (ulong i = 0; i < 7; i++)
        {
            ulong size = i == 6 ? (64 * GiB) - offset : 9 * GiB;
            payload.AddRange(WirePeer.Bytes(new MemoryRegionPayload((i + 1) << 40, size, (i + 1) << 40, offset)));
            offset += size;
        }

        FileDescriptor[] descriptors = [memory.File.Descriptor, .. Enumerable.Repeat(file, 7)];
        return peer.DoBytesAsync(FrontendRequest.SetMemTable, [.. payload], descriptors);
    }

    private async Task MeasureAsync(string what, Func<Task> action, Func<Task>? afterwards = null)
    {
        List<double> milliseconds = [];
        for (int i = 0; i < Rounds; i++)
        {
            long start = Stopwatch.GetTimestamp();
            await action();
            milliseconds.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            await (afterwards?.Invoke() ?? Task.CompletedTask);
        }

        Tell(what, milliseconds);
    }

    private void Tell(string what, List<double> milliseconds)
    {
        milliseconds.Sort();
        output.WriteLine($"{what}: median {milliseconds[milliseconds.Count / 2]:F2} ms, most {milliseconds[^1]:F2} ms");
    }
}

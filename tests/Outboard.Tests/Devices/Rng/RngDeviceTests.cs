// The entropy device: fills what it is given, within its bounds, and leaves the ring alone while it has nothing.
using Outboard.Devices.Rng;
using Outboard.Linux;
using Outboard.Tests.Linux;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Rng;

public sealed class RngDeviceTests
{
    [Fact]
    public async Task A_request_is_filled_whole_over_all_of_its_buffers()
    {
        await using QueueRig rig = new(new RngDevice(EntropySource.System));
        DrivenQueue queue = await rig.StartAsync(0);
        DriverBuffer first = rig.Memory.Allocate(64);
        DriverBuffer second = rig.Memory.Allocate(5000);
        Assert.True(queue.Ring.TryAdd([], [first, second], 7));
        queue.Submit();
        Assert.Equal((7u, 5064u), queue.Collect());
        Assert.True(first.Span.ContainsAnyExcept((byte)0));
        Assert.True(second.Span[4900..].ContainsAnyExcept((byte)0));
    }

    [Fact]
    public async Task A_long_request_is_answered_up_to_the_bound()
    {
        await using QueueRig rig = new(new RngDevice(EntropySource.System));
        DrivenQueue queue = await rig.StartAsync(0);
        DriverBuffer buffer = rig.Memory.Allocate(RngDevice.MaxRequestBytes + 4096);
        Assert.True(queue.Ring.TryAdd([], [buffer], 1));
        queue.Submit();
        Assert.Equal((1u, (uint)RngDevice.MaxRequestBytes), queue.Collect());
        Assert.False(buffer.Span[RngDevice.MaxRequestBytes..].ContainsAnyExcept((byte)0));
    }

    [Fact]
    public async Task A_file_gives_its_bytes_once_and_then_requests_stay_in_the_ring()
    {
        byte[] content = [.. Enumerable.Range(1, 100).Select(value => (byte)value)];
        using TemporaryFile file = TemporaryFile.OnDisk(100);
        await File.WriteAllBytesAsync(file.Path, content, TestContext.Current.CancellationToken);
        using EntropySource source = EntropySource.Open(file.Path);
        RngDevice device = new(source);
        int? exhausted = null;
        device.SourceExhausted += result => exhausted = result;
        await using QueueRig rig = new(device);
        DrivenQueue queue = await rig.StartAsync(0);
        DriverBuffer buffer = rig.Memory.Allocate(64);
        Add(queue, buffer);
        Assert.Equal(64u, queue.Collect().Written);
        Assert.Equal(content[..64], buffer.Span.ToArray());
        Add(queue, buffer);
        Assert.Equal(36u, queue.Collect().Written);
        Assert.Equal(content[64..], buffer.Span[..36].ToArray());
        Add(queue, buffer);
        queue.ExpectNothing();
        Assert.Equal(0, exhausted);
        Assert.Equal(2u, await queue.StopAsync());
    }

    [Fact]
    public async Task A_rate_is_kept_without_holding_requests()
    {
        RngDeviceOptions options = new() { MaxBytesPerSecond = 1000 };
        await using QueueRig rig = new(new RngDevice(EntropySource.System, options));
        DrivenQueue queue = await rig.StartAsync(0);
        DriverBuffer buffer = rig.Memory.Allocate(2000);
        long start = Environment.TickCount64;
        uint total = 0;
        while (total < 1200)
        {
            Add(queue, buffer);
            total += queue.Collect().Written;
        }

        // The first second's worth is there at once; the next 200 bytes take 200 ms.
        Assert.InRange(Environment.TickCount64 - start, 150, 60_000);
    }

    [Fact]
    public async Task A_source_that_is_empty_now_is_asked_again()
    {
        HesitantSource source = new();
        await using QueueRig rig = new(new RngDevice(source));
        DrivenQueue queue = await rig.StartAsync(0);
        Add(queue, rig.Memory.Allocate(16));
        Assert.Equal(16u, queue.Collect().Written);
        Assert.Equal(4, source.Asked);
    }

    [Fact]
    public async Task Nothing_is_allocated_for_a_request()
    {
        await using QueueRig rig = new(new RngDevice(EntropySource.System));
        DrivenQueue queue = await rig.StartAsync(0);
        DriverBuffer buffer = rig.Memory.Allocate(64);
        long allocated = await rig.AllocatedAsync(() =>
        {
            Add(queue, buffer);
            _ = queue.Collect();
        });
        Assert.Equal(0, allocated);
    }

    [Fact]
    public void A_path_that_is_no_source_is_refused_with_its_name()
    {
        LinuxException missing = Assert.Throws<LinuxException>(() => EntropySource.Open("/nowhere/at/all"));
        Assert.Contains("/nowhere/at/all", missing.Message, StringComparison.Ordinal);
        LinuxException folder = Assert.Throws<LinuxException>(() => EntropySource.Open("/proc"));
        Assert.Contains("neither", folder.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_budget_fills_with_time_up_to_one_second()
    {
        long now = 0;
        ByteBudget budget = new(500, () => now);
        Assert.Equal(500, budget.Available);
        budget.Spend(500);
        Assert.Equal(0, budget.Available);
        now += System.Diagnostics.Stopwatch.Frequency / 10;
        Assert.Equal(50, budget.Available);
        now += System.Diagnostics.Stopwatch.Frequency * 100;
        Assert.Equal(500, budget.Available);
    }

    private static void Add(DrivenQueue queue, DriverBuffer buffer)
    {
        Assert.True(queue.Ring.TryAdd([], [buffer], 0));
        queue.Submit();
    }

    /// <summary>Has nothing the first three times.</summary>
    private sealed class HesitantSource : EntropySource
    {
        public int Asked { get; private set; }

        public override string Description => "hesitant";

        public override int Fill(Span<byte> destination) =>
            ++Asked <= 3 ? -Errno.TryAgain : destination.Length;
    }
}

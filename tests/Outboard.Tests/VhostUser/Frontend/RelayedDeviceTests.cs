// A device behind a socket, served again: over vhost-user, over vfio-user, from any device of ours.
using System.Security.Cryptography;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Tests.Cli;
using Outboard.Tests.Devices;
using Outboard.Tests.VfioUser.Client;
using Outboard.Tests.Virtio.Rig;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Frontend.Relay;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class RelayedDeviceTests : IAsyncDisposable
{
    private const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex;

    private readonly TemporaryFolder _folder = new();
    private readonly QueueWorker _worker = new("test");
    private EndingBackend? _backend;
    private RelayedDevice? _remote;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static VhostUserBackendOptions Offering => new()
    {
        AdditionalProtocolFeatures = ProtocolFeatures.LifeCycle,
    };

    private string SocketPath => _folder["device.sock"];

    public async ValueTask DisposeAsync()
    {
        if (_remote is not null)
        {
            await _remote.DisposeAsync();
        }

        if (_backend is not null)
        {
            await _backend.DisposeAsync();
        }

        await _worker.DisposeAsync();
        _folder.Dispose();
    }

    [Fact]
    public async Task It_is_what_the_device_is()
    {
        FakeDevice device = new();
        device.ChangeCapacity(0x1234);
        RelayedDevice remote = await ConnectAsync(device);
        Assert.Equal(device.Id, remote.Id);
        Assert.Equal(FakeDevice.OwnFeatures, remote.DeviceFeatures);
        Assert.Equal([64, 64, 16], Enumerable.Range(0, remote.QueueCount).Select(remote.MaxQueueSize));
        Assert.Equal(FakeDevice.ConfigBytes, remote.Config.SizeBytes);
        Assert.Equal(0x1234u, remote.Config.Get(FakeDevice.Capacity));
    }

    [Theory]
    [InlineData(Features)]
    [InlineData(Features | VirtioFeatures.RingPacked)]
    [InlineData(Features | VirtioFeatures.InOrder)]
    public async Task Requests_pass_through_and_queues_come_and_go(ulong features)
    {
        FakeDevice device = new();
        RelayedDevice remote = await ConnectAsync(device);
        for (int life = 0; life < 3; life++)
        {
            remote.AcceptFeatures(features | FakeDevice.OwnFeatures);
            for (int start = 0; start < 2; start++)
            {
                await using ServedRing ring = await ServedRing.StartAsync(remote, _worker, features: features);
                for (uint i = 0; i < 40; i++)
                {
                    ring.Buffer.Span[..8].Fill((byte)(i + 1));
                    ring.Buffer.Span[8..12].Clear();
                    ring.Submit(i);
                    Assert.Equal(i, ring.Collect(out uint written));
                    Assert.Equal(4u, written);
                    Assert.True(ring.Buffer.Span[8..12].IndexOfAnyExcept((byte)(i + 1)) < 0);
                }
            }

            Assert.Equal(FakeDevice.OwnFeatures, device.NegotiatedFeatures & ~VirtioFeatures.Reserved);
            int resets = device.Resets;
            remote.Reset();
            Assert.Equal(resets + 1, device.Resets);
        }
    }

    [Fact]
    public async Task More_requests_than_there_is_room_for_wait_in_the_ring()
    {
        RelayedDevice remote = await ConnectAsync(new FakeDevice());
        remote.AcceptFeatures(Features);
        await using ServedRing ring =
            await ServedRing.StartAsync(remote, _worker, index: 0, size: 64, features: Features);
        for (uint i = 0; i < 1000; i++)
        {
            while (!ring.Driver.TryAdd([ring.Buffer.Slice(0, 8)], [ring.Buffer.Slice(8, 4)], i))
            {
                ring.Driver.Publish();
                ring.Kick();
                ring.Collect();
            }
        }

        ring.Driver.Publish();
        ring.Kick();
        while (ring.Driver.InFlight > 0)
        {
            ring.Collect();
        }
    }

    [Fact]
    public async Task What_the_device_left_alone_stays_as_it_was()
    {
        // The device writes 4 bytes of the 64.
        RelayedDevice remote = await ConnectAsync(new FakeDevice());
        remote.AcceptFeatures(Features);
        await using ServedRing ring = await ServedRing.StartAsync(remote, _worker, features: Features);
        ring.Buffer.Span.Fill(0x77);
        Assert.True(ring.Driver.TryAdd([ring.Buffer.Slice(0, 4)], [ring.Buffer.Slice(100, 64)], 1));
        ring.Driver.Publish();
        ring.Kick();
        ring.Collect(out uint written);
        Assert.Equal(4u, written);
        Assert.True(ring.Buffer.Span[100..164].IndexOfAnyExcept((byte)0x77) < 0);
    }

    [Fact]
    public async Task Configuration_goes_both_ways()
    {
        FakeDevice device = new();
        RelayedDevice remote = await ConnectAsync(device);
        remote.AcceptFeatures(Features);
        TaskCompletionSource told = new(TaskCreationOptions.RunContinuationsAsynchronously);
        remote.ConfigChanged += () => told.TrySetResult();
        device.ChangeCapacity(99);
        await told.Task.WaitAsync(Eventually.Limit, Token);
        Assert.Equal(99u, remote.Config.Get(FakeDevice.Capacity));
        Assert.True(remote.WriteConfig(8, [5]));
        Assert.Equal((5u, 5u), (device.Config.Get(FakeDevice.Mode), remote.Config.Get(FakeDevice.Mode)));
        Assert.False(remote.WriteConfig(0, [1]));
        Assert.False(remote.WriteConfig(16, [1]));
        Assert.False(remote.WriteConfig(uint.MaxValue, [1]));
        Assert.Equal(99u, remote.Config.Get(FakeDevice.Capacity));
    }

    [Fact]
    public async Task Features_told_twice_undo_nothing()
    {
        FakeDevice device = new();
        RelayedDevice relayed = await ConnectAsync(device);
        relayed.AcceptFeatures(Features);
        int resets = device.Resets;
        Assert.True(relayed.WriteConfig(8, [5]));
        relayed.AcceptFeatures(Features);
        Assert.Equal(resets, device.Resets);
        relayed.AcceptFeatures(Features | FakeDevice.OwnFeatures);
        Assert.Equal(resets + 1, device.Resets);
    }

    [Fact]
    public async Task Nothing_is_allocated_for_a_request()
    {
        RelayedDevice relayed = await ConnectAsync(new FakeDevice());
        await using QueueRig rig = new(relayed);
        DrivenQueue queue = await rig.StartAsync(0, 16);
        DriverBuffer buffer = rig.Memory.Allocate(64);
        long allocated = await rig.AllocatedAsync(() =>
        {
            Assert.True(queue.Ring.TryAdd([buffer.Slice(0, 8)], [buffer.Slice(8, 8)], 3));
            queue.Submit();
            Assert.Equal((3u, 8u), queue.Collect());
        });
        Assert.Equal(0, allocated);
    }

    [Fact]
    public async Task No_queue_starts_for_a_legacy_driver()
    {
        RelayedDevice remote = await ConnectAsync(new FakeDevice());
        remote.AcceptFeatures(0);
        await Assert.ThrowsAsync<VringSetupException>(() => ServedRing.StartAsync(remote, _worker));
    }

    [Fact]
    public async Task Queues_stop_when_the_back_end_is_gone_and_none_starts()
    {
        FakeDevice device = new() { Holds = true };
        RelayedDevice remote = await ConnectAsync(device);
        remote.AcceptFeatures(Features);
        ServedRing ring = await ServedRing.StartAsync(remote, _worker, features: Features);
        ring.Submit(1);
        await Eventually.TrueAsync(() => device.Held == 1, "the device has it");
        Task<uint> stop = ring.StopAsync();
        Task ending = _backend!.DisposeAsync().AsTask();
        _backend = null;
        device.CompleteHeld();
        await ending;
        await remote.Lost.WaitAsync(Eventually.Limit, Token);
        await stop.WaitAsync(Eventually.Limit, Token);
        await ring.DisposeAsync();
        await Assert.ThrowsAsync<VringSetupException>(
            () => ServedRing.StartAsync(remote, _worker, features: Features));
        remote.Reset();
        remote.AcceptFeatures(Features);
        Assert.False(remote.WriteConfig(8, [1]));
    }

    [Fact]
    public async Task A_killed_back_end_holds_up_no_stop()
    {
        OutboardProcess process = OutboardProcess.Start(
            "block", $"--socket-path={SocketPath}", "--memory-size=1M", "--fault-delay=60000", "--life-cycle",
            "--quiet");
        try
        {
            await process.ListensAsync(SocketPath);
            _remote = await RelayedDevice.ConnectAsync(SocketPath, null, Token);
            _remote.AcceptFeatures(Features);
            ServedRing ring = await ServedRing.StartAsync(_remote, _worker, features: Features);
            ring.Buffer.Span[..16].Clear();
            DriverBuffer[] answer = [ring.Buffer.Slice(512, 512), ring.Buffer.Slice(2048, 1)];
            Assert.True(ring.Driver.TryAdd([ring.Buffer.Slice(0, 16)], answer, 1));
            ring.Driver.Publish();
            ring.Kick();
            await Eventually.TrueAsync(() => !ring.Driver.TryCollect(out _, out _), "it waits");
            process.Signal("KILL");
            await _remote.Lost.WaitAsync(Eventually.Limit, Token);

            // The request goes back into the ring, for whoever serves it next.
            Assert.Equal(0u, await ring.StopAsync().WaitAsync(Eventually.Limit, Token));
            Assert.False(ring.Driver.TryCollect(out _, out _));
            await ring.DisposeAsync();
        }
        finally
        {
            await process.DisposeAsync();
        }
    }

    [Fact]
    public async Task State_is_the_devices()
    {
        FakeDevice device = new() { Luggage = [1, 2, 3] };
        RelayedDevice remote = await ConnectAsync(device);
        byte[] state = remote.SaveState();
        device.Luggage = [0, 0, 0];
        remote.LoadState(state);
        Assert.Equal([1, 2, 3], device.Luggage);
    }

    [Fact]
    public async Task A_back_end_without_it_is_refused()
    {
        _backend = new EndingBackend(new FakeDevice(), SocketPath);
        ProtocolException refusal =
            await Assert.ThrowsAsync<ProtocolException>(() => RelayedDevice.ConnectAsync(SocketPath, null, Token));
        Assert.Contains("--life-cycle", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task It_is_served_again_over_vhost_user()
    {
        FakeDevice device = new();
        RelayedDevice remote = await ConnectAsync(device);
        string path = _folder["again.sock"];
        await using EndingBackend again = new(remote, path);
        for (int connection = 0; connection < 3; connection++)
        {
            await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(path, null, Token);
            using DriverMemory memory = new(1 << 16);
            await frontend.ShareMemoryAsync(memory, Token);
            using FrontendQueue queue = await frontend.StartQueueAsync(1, 16, memory, Token);
            DriverBuffer buffer = memory.Allocate(8);
            buffer.Span[0] = (byte)(connection + 1);
            Assert.True(queue.Ring.TryAdd([buffer.Slice(0, 4)], [buffer.Slice(4, 4)], 7));
            queue.Submit();
            await Eventually.TrueAsync(() => queue.Ring.TryCollect(out _, out _), "the answer");
            Assert.Equal(connection + 1, buffer.Span[4]);
            await frontend.StopQueueAsync(queue, Token);
        }
    }

    [Fact]
    public async Task A_disk_is_served_again_over_vfio_user()
    {
        using MemoryDisk disk = new(4 << 20);
        RelayedDevice remote = await ConnectAsync(new BlockDevice(disk, new BlockDeviceOptions { QueueCount = 2 }));
        await using VirtioPciFunction function = new(remote);
        await using ServedFunction served = new(function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Token);
        Assert.Equal(VirtioDeviceId.Block, driver.DeviceId);
        using DriverMemory memory = new(8 << 20);
        await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Token);
        List<BlockDriver> queues = [];
        for (int queue = 0; queue < 2; queue++)
        {
            queues.Add(new BlockDriver(await driver.StartQueueAsync(queue, 64, memory, Token), 4, 256 << 10));
        }

        await driver.RunAsync(Token);
        await Task.WhenAll(queues.Select((block, index) => Task.Run(() => Verify(block, index), Token)));
        await driver.ResetAsync(Token);
        await client.UnmapAsync(memory.GuestAddress, memory.SizeBytes, Token);
    }

    private static void Verify(BlockDriver block, int queue)
    {
        const uint bytes = 256 << 10;
        for (int round = 0; round < 8; round++)
        {
            ulong sector = (ulong)((queue * 8) + round) * (bytes / 512) % 8192 / 512 * 512;
            byte[] content = RandomNumberGenerator.GetBytes((int)bytes);
            ulong first = ((ulong)queue * 4096) + (sector % 3584);
            content.CopyTo(block.Data(0));
            Assert.True(block.TryWrite(0, first, bytes));
            Finish(block);
            block.Data(1).Clear();
            Assert.True(block.TryRead(1, first, bytes));
            Finish(block);
            Assert.True(block.Data(1)[..(int)bytes].SequenceEqual(content));
        }

        // Beyond the end: the status tells, and it lies behind data that nobody wrote.
        Assert.True(block.TryRead(2, 1 << 20, 512));
        Assert.Equal(BlockStatus.IoError, Finish(block));
    }

    private static BlockStatus Finish(BlockDriver block)
    {
        block.Submit();
        Span<BlockCompletion> completions = stackalloc BlockCompletion[1];
        Assert.True(SpinWait.SpinUntil(() => CollectOne(block, out s_last), Eventually.Limit), "no completion");
        completions[0] = s_last;
        return completions[0].Status;
    }

    [ThreadStatic]
    private static BlockCompletion s_last;

    private static bool CollectOne(BlockDriver block, out BlockCompletion completion)
    {
        Span<BlockCompletion> completions = stackalloc BlockCompletion[1];
        bool has = block.Collect(completions) == 1;
        completion = completions[0];
        return has;
    }

    private async Task<RelayedDevice> ConnectAsync(VirtioDevice device)
    {
        _backend = new EndingBackend(device, SocketPath, Offering);
        _remote = await RelayedDevice.ConnectAsync(SocketPath, null, Token);
        return _remote;
    }
}

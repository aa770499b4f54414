// "outboard nvme" as a program: what it refuses, and that a driver finds what it was told.
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Tests.Devices.Nvme;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class NvmeCommandTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_driver_finds_what_was_asked_for()
    {
        string one = MakeFile("one", 1 << 20);
        string two = MakeFile("two", 2 << 20);
        await using OutboardProcess server = OutboardProcess.Start(
            "nvme", $"--vfio-user-socket={_folder["s"]}", $"--blk-file={one}", $"--namespace={two},read-only",
            $"--namespace={MakeFile("three", 4 << 20)},block-size=4096", "--serial=SN 7", "--model=A disk",
            "--num-queues=3", "--queue-size=128", "--quiet");
        await server.ListensAsync(_folder["s"]);
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        await using (VfioUserClient client = await VfioUserClient.ConnectAsync(_folder["s"]))
        {
            using DriverMemory memory = new(4 << 20);
            await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, cancellation);
            using NvmeDriver driver = await NvmeDriver.StartAsync(client, memory, cancellation: cancellation);
            Assert.Equal(3, driver.QueuePairs);
            Assert.Equal((2048UL, 512), await driver.GetSizeAsync(1, cancellation));
            Assert.Equal((4096UL, 512), await driver.GetSizeAsync(2, cancellation));
            Assert.Equal((1024UL, 4096), await driver.GetSizeAsync(3, cancellation));
            Assert.Equal(1, (await driver.IdentifyAsync(NvmeIdentify.Namespace, 2, cancellation))[99]);
            byte[] controller = await driver.IdentifyAsync(NvmeIdentify.Controller, 0, cancellation);
            Assert.Equal("SN 7                A disk", System.Text.Encoding.ASCII.GetString(controller, 4, 26));
        }

        server.Signal("TERM");
        Assert.Equal(0, (await server.EndAsync()).ExitCode);
    }

    /// <summary>Two processes on one image, which each of them locks while the guest is there.</summary>
    [Fact]
    public async Task A_guest_goes_from_one_process_to_another()
    {
        string image = MakeFile("image", 1 << 20);
        string[] sockets = [_folder["here"], _folder["there"]];
        await using OutboardProcess here = OutboardProcess.Start(
            "nvme", $"--vfio-user-socket={sockets[0]}", $"--blk-file={image}", "--num-queues=2", "--quiet");
        await here.ListensAsync(sockets[0]);
        await using OutboardProcess there = OutboardProcess.Start(
            "nvme", $"--vfio-user-socket={sockets[1]}", $"--blk-file={image}", "--num-queues=2", "--quiet",
            "--incoming");
        await there.ListensAsync(sockets[1]);
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using DriverMemory memory = new(4 << 20);
        await using (VfioUserClient source = await VfioUserClient.ConnectAsync(sockets[0]))
        await using (VfioUserClient target = await VfioUserClient.ConnectAsync(sockets[1]))
        {
            await source.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, cancellation);
            await target.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, cancellation);
            using NvmeDriver driver = await NvmeDriver.StartAsync(source, memory, cancellation: cancellation);
            NvmeDriverQueue queue = await driver.CreateQueueAsync(1, 16, true, cancellation);
            DriverBuffer written = memory.Allocate(4096, 4096), found = memory.Allocate(4096, 4096);
            Random.Shared.NextBytes(written.Span);
            Assert.True(queue.TryWrite(1, 1, 8, 8, written));
            queue.Submit();
            Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);

            List<byte> stream = await MigrationStream.LeaveAsync(source);
            await driver.FollowAsync(target, cancellation);
            await MigrationStream.ArriveAsync(target, stream);
            Assert.True(queue.TryRead(2, 1, 8, 8, found));
            queue.Submit();
            Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
            Assert.True(found.Span.SequenceEqual(written.Span));
        }

        foreach (OutboardProcess process in (OutboardProcess[])[here, there])
        {
            process.Signal("TERM");
            Assert.Equal(0, (await process.EndAsync()).ExitCode);
        }
    }

    [Fact]
    public async Task What_cannot_be_served_is_told()
    {
        string socket = $"--vfio-user-socket={_folder["s"]}";
        (await OutboardProcess.RunAsync("nvme", "--memory-size=1M")).AssertFailed(2, "--vfio-user-socket");
        (await OutboardProcess.RunAsync("nvme", socket)).AssertFailed(2, "--namespace");
        (await OutboardProcess.RunAsync("nvme", socket, "--memory-size=1M", "--null-size=1M"))
            .AssertFailed(2, "exclude");
        (await OutboardProcess.RunAsync("nvme", socket, "--memory-size=1M", "--block-size=1024"))
            .AssertFailed(2, "--block-size");
        (await OutboardProcess.RunAsync("nvme", socket, "--memory-size=1M", "--incoming")).AssertFailed(2, "no file");
        (await OutboardProcess.RunAsync("nvme", socket, "--namespace=x", "--incoming", "--no-lock"))
            .AssertFailed(2, "exclude");
        (await OutboardProcess.RunAsync("nvme", socket, "--namespace=x,colour=red")).AssertFailed(2, "read-only");
        (await OutboardProcess.RunAsync("nvme", socket, "--memory-size=1M", "--serial=123456789012345678901"))
            .AssertFailed(2, "--serial");
        (await OutboardProcess.RunAsync("nvme", socket, $"--namespace={_folder["none"]}"))
            .AssertFailed(1, _folder["none"]);
    }

    private string MakeFile(string name, long bytes)
    {
        using FileStream file = File.Create(_folder[name]);
        file.SetLength(bytes);
        return _folder[name];
    }
}

// Asynchronous events: bad doorbells, changed namespaces, the limit of requests, aborts.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Tests.Linux;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class EventTests
{
    private static readonly NvmeCommand s_request = new() { Opcode = (byte)NvmeAdminOpcode.AsynchronousEventRequest };

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Doorbell_values_that_cannot_be_are_told_and_ignored(bool shadow)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: shadow);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 16);
        ushort request = rig.Driver.Submit(s_request);
        queue.Rings.WriteDoorbell(isCompletion: false, 16);
        Assert.Equal((uint)NvmeEvent.InvalidDoorbellValue, (await rig.Driver.WaitAsync(request)).Result);

        // the next of the type waits until the log was read
        request = rig.Driver.Submit(s_request);
        new NvmeRings(rig.Client, rig.Memory, 3, 4, 4).WriteDoorbell(isCompletion: false, 1);
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(Features(1)));
        Assert.False(rig.Driver.IsCompleted(request));
        await rig.ReadLogAsync(NvmeLogPage.Errors, 1024, flags: 1 << 15);
        Assert.False(rig.Driver.IsCompleted(request));
        byte[] errors = await rig.ReadLogAsync(NvmeLogPage.Errors, 1024);
        Assert.Equal(2, BitConverter.ToInt64(errors));
        Assert.Equal((uint)NvmeEvent.InvalidDoorbellRegister, (await rig.Driver.WaitAsync(request)).Result);
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
    }

    [Fact]
    public async Task A_completion_doorbell_that_takes_more_than_there_is_is_told()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 4);
        ushort request = rig.Driver.Submit(s_request);
        Assert.True(queue.TryAdd(rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
        queue.Submit();
        while (!queue.Rings.TryTake(out _))
        {
            await Task.Yield();
        }

        Assert.False(rig.Driver.IsCompleted(request));
        queue.Rings.WriteDoorbell(isCompletion: true, 3);
        Assert.Equal((uint)NvmeEvent.InvalidDoorbellValue, (await rig.Driver.WaitAsync(request)).Result);
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(
                NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
        }
    }

    [Fact]
    public async Task A_shadow_doorbell_that_cannot_be_is_told_and_ignored()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 16);
        ushort request = rig.Driver.Submit(s_request);
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
        rig.Driver.SetShadow(2, 0xfff0);
        queue.Rings.WriteDoorbell(isCompletion: false, 0);
        Assert.Equal((uint)NvmeEvent.InvalidDoorbellValue, (await rig.Driver.WaitAsync(request)).Result);
        rig.Driver.SetShadow(2, 1);
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
    }

    [Fact]
    public async Task Requests_are_limited_and_can_be_aborted()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        ushort[] requests = [.. Enumerable.Range(0, 4).Select(_ => rig.Driver.Submit(s_request))];
        Assert.Equal(NvmeStatus.EventRequestLimitExceeded, await rig.AdminAsync(s_request));
        Assert.Equal((NvmeStatus.Success, 0u), await AbortAsync(rig, 0, requests[1]));
        Assert.Equal(NvmeStatus.AbortRequested, (await rig.Driver.WaitAsync(requests[1])).Status);
        Assert.Equal((NvmeStatus.Success, 1u), await AbortAsync(rig, 0, requests[1]));
        Assert.Equal((NvmeStatus.Success, 1u), await AbortAsync(rig, 1, requests[0]));
        ushort again = rig.Driver.Submit(s_request);
        Assert.Equal(NvmeStatus.EventRequestLimitExceeded, await rig.AdminAsync(s_request));
        Assert.False(rig.Driver.IsCompleted(again));
    }

    [Fact]
    public async Task A_namespace_that_grows_is_told_to_who_wants_to_know()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(1 << 20);
        await using NvmeRig rig = await NvmeRig.StartAsync(
            disks: [new MemoryDisk(1 << 20), FileDisk.Open(file.Path)]);
        ushort request = rig.Driver.Submit(s_request);
        Assert.False(rig.Controller.RefreshSizes());
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(Features(0x100)));
        using (FileStream stream = File.OpenWrite(file.Path))
        {
            stream.SetLength(2 << 20);
        }

        Assert.True(rig.Controller.RefreshSizes());
        Assert.Equal((uint)NvmeEvent.NamespaceChanged, (await rig.Driver.WaitAsync(request)).Result);
        byte[] changed = await rig.ReadLogAsync(NvmeLogPage.ChangedNamespaces, 4096);
        Assert.Equal([2u, 0u], [BitConverter.ToUInt32(changed), BitConverter.ToUInt32(changed, 4)]);
        Assert.Equal(new byte[64], await rig.ReadLogAsync(NvmeLogPage.ChangedNamespaces, 64));
        Assert.Equal((4096UL, 512), await rig.Driver.GetSizeAsync(2));
    }

    private static NvmeCommand Features(uint value) => new()
    {
        Opcode = (byte)NvmeAdminOpcode.SetFeatures, Word10 = (uint)NvmeFeature.EventConfiguration, Word11 = value,
    };

    private static async Task<(NvmeStatus Status, uint Result)> AbortAsync(NvmeRig rig, uint queue, ushort id)
    {
        NvmeCompletion completion = await rig.Driver.ExecuteAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.Abort, Word10 = queue | ((uint)id << 16),
        });
        return (completion.Status, completion.Result);
    }
}

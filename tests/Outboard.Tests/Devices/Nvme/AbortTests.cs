// The abort command: what no disk has been given is ended; what a disk has, and what is not there, is not, and the
// driver hears which.
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Pci.Driver;
using Outboard.Tests.Devices.Block;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class AbortTests
{
    /// <summary>Commands of a worker that may have a buffer at a time.</summary>
    private const int Buffers = 8;
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);
    private static readonly (NvmeStatus, uint) s_aborted = (NvmeStatus.Success, 0);
    private static readonly (NvmeStatus, uint) s_notAborted = (NvmeStatus.Success, 1);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_command_that_waits_for_a_buffer_is_ended_and_those_that_the_disk_has_are_not()
    {
        using HeldDisk disk = new(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(disks: disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 16);
        NvmeCommand compare = rig.Move(NvmeIoOpcode.Compare, rig.Fill(4096), 0);
        for (int i = 0; i < Buffers + 3; i++)
        {
            Assert.True(queue.TryAdd(compare with { Id = (ushort)i }));
        }

        queue.Submit();
        await Until(() => disk.Held == Buffers);
        Assert.Equal(s_aborted, await AbortAsync(rig, 1, Buffers + 1));
        NvmeFinished ended = (await NvmeRig.CollectAsync(queue, 1))[0];
        Assert.Equal((Buffers + 1, (int)NvmeStatus.AbortRequested), (ended.Id, ended.Status));
        Assert.Equal(s_notAborted, await AbortAsync(rig, 1, Buffers + 1));
        Assert.Equal(s_notAborted, await AbortAsync(rig, 1, 0));
        Assert.Equal(s_notAborted, await AbortAsync(rig, 1, 99));
        Assert.Equal(s_notAborted, await AbortAsync(rig, 2, 0));
        Assert.Equal(s_notAborted, await AbortAsync(rig, 0xffff, 0));

        List<NvmeFinished> others = [];
        while (others.Count < Buffers + 2)
        {
            await Until(() => disk.Release());
            others.AddRange(await NvmeRig.CollectAsync(queue, 1));
        }

        Assert.DoesNotContain(others, one => one.Status == (int)NvmeStatus.AbortRequested);
        int[] rest = [.. Enumerable.Range(0, Buffers + 3).Where(id => id != Buffers + 1)];
        Assert.Equal(rest, others.Select(one => (int)one.Id).Order());
    }

    /// <summary>The worker is busy while commands and the abort come.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_command_that_is_still_in_the_ring_is_ended_in_its_turn(bool shadow)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: shadow);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 4);
        SubmissionQueue ring = rig.Controller.Submission(1)!;
        DriverBuffer data = rig.Allocate();
        for (int round = 0; round < 5; round++)
        {
            using ManualResetEventSlim release = new();
            ring.Worker.Post(() => release.Wait(s_limit));
            for (ushort id = 1; id <= 3; id++)
            {
                Assert.True(queue.TryRead(id, 1, 0, 8, data));
            }

            queue.Submit();
            await rig.Client.ReadAsync(PciHandle.Config, 0, new byte[4], Cancellation);
            bool[] outcomes = new bool[3];
            Task aborting = ring.Worker.InvokeAsync(() =>
            {
                outcomes[0] = ring.TryAbort(2);
                outcomes[1] = ring.TryAbort(2);
                outcomes[2] = ring.TryAbort(7);
            });
            release.Set();
            await aborting;
            Assert.Equal([true, false, false], outcomes);
            List<NvmeFinished> all = await NvmeRig.CollectAsync(queue, 3);
            Assert.Equal(
                [(1, 0), (2, (int)NvmeStatus.AbortRequested), (3, 0)],
                all.Select(one => ((int)one.Id, one.Status)).Order());

            // the identifier, and the place, mean other commands from now on
            for (ushort id = 1; id <= 3; id++)
            {
                Assert.True(queue.TryRead(id, 1, 0, 8, data));
                queue.Submit();
                Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
            }
        }
    }

    [Fact]
    public async Task More_aborts_than_there_may_be_at_a_time_are_carried_out_one_after_the_other()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        await rig.CreateQueueAsync();
        ushort[] aborts = [.. Enumerable.Range(0, 20).Select(id => rig.Driver.Submit(Abort(1, (ushort)id)))];
        foreach (ushort abort in aborts)
        {
            NvmeCompletion completion = await rig.Driver.WaitAsync(abort, Cancellation);
            Assert.Equal(s_notAborted, (completion.Status, completion.Result));
        }
    }

    private static NvmeCommand Abort(uint queue, ushort id) => new()
    {
        Opcode = (byte)NvmeAdminOpcode.Abort, Word10 = queue | ((uint)id << 16),
    };

    private static async Task<(NvmeStatus Status, uint Result)> AbortAsync(NvmeRig rig, uint queue, ushort id)
    {
        NvmeCompletion completion = await rig.Driver.ExecuteAsync(Abort(queue, id), Cancellation);
        return (completion.Status, completion.Result);
    }

    private static async Task Until(Func<bool> condition)
    {
        for (int look = 0; !condition(); look++)
        {
            Assert.True(look < 20_000);
            await Task.Delay(1, Cancellation);
        }
    }
}

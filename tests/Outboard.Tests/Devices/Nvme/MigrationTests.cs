// A controller moves to another process, by our own client, while commands go on. The copy of guest memory gets only
// what the log of dirty pages tells, so a page that the controller wrote and did not mark is found missing.
using System.Security.Cryptography;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.State;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class MigrationTests
{
    private const int Page = 4096;
    private const int Places = 64;
    private const int Batch = 16;
    private static readonly NvmeOptions s_options = NvmeMachine.Options;

    private readonly byte[] _content = RandomNumberGenerator.GetBytes(Places * Page);
    private byte[] _copy = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public async Task A_controller_moves_while_it_is_read(bool shadow, bool hasPreCopy)
    {
        using MemoryDisk disk = new(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(s_options, shadow: shadow, disks: disk);
        NvmeDriverQueue[] queues = [await rig.CreateQueueAsync(1, 32), await rig.CreateQueueAsync(3, 32)];
        await FillAsync(rig, queues[0]);
        ushort request = rig.Driver.Submit(
            new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.AsynchronousEventRequest });
        Assert.Equal(NvmeStatus.Success, await SetThresholdAsync(rig, 333));
        DriverBuffer[] data = [.. Enumerable.Range(0, 4 * Batch).Select(_ => Untouched(rig))];
        List<byte> stream = [];
        await rig.Client.StartDirtyLogAsync(cancellation: Cancellation);
        _copy = Bytes(rig).ToArray();
        if (hasPreCopy)
        {
            await rig.Client.SetMigrationStateAsync(MigrationState.PreCopy, Cancellation);
            await MigrationStream.ReadAllAsync(rig.Client, stream);
            Assert.NotEmpty(stream);
        }

        for (int round = 0; round < 3; round++)
        {
            Submit(queues[round % 2], data, round * Batch);
            await CollectAsync(queues[round % 2], data);
            Assert.InRange(await CopyDirtyAsync(rig), Batch, 2 * Batch);
        }

        // these are on their way when the controller is stopped: it has taken them, or some, or none
        Submit(queues[1], data, 3 * Batch);
        await rig.Client.SetMigrationStateAsync(MigrationState.StopCopy, Cancellation);
        await CopyDirtyAsync(rig);
        Assert.Equal(0, await CopyDirtyAsync(rig));
        await MigrationStream.ReadAllAsync(rig.Client, stream);
        RequireCopied(rig, queues, data);

        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        Array.ForEach(queues, queue => queue.Completed!.Take());
        await there.ArriveAsync(rig, stream);
        Assert.All(queues, queue => Assert.NotEqual(0UL, queue.Completed!.Wait(20_000)));
        await CollectAsync(queues[1], data);
        for (int round = 0; round < 8; round++)
        {
            Submit(queues[round % 2], data, round % 4 * Batch);
            await CollectAsync(queues[round % 2], data);
            Assert.NotEqual(0UL, queues[round % 2].Completed!.Wait(20_000));
        }

        Assert.Equal(333u, await GetThresholdAsync(rig));
        NvmeCompletion abort = await rig.Driver.ExecuteAsync(
            new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.Abort, Word10 = (uint)request << 16 }, Cancellation);
        Assert.Equal(0u, abort.Result);
        Assert.Equal(NvmeStatus.AbortRequested, (await rig.Driver.WaitAsync(request, Cancellation)).Status);
        await rig.Driver.DeleteQueueAsync(3, Cancellation);
        await rig.Driver.StopAsync(Cancellation);
    }

    /// <summary>The client may stop and go on without moving; commands wait in the ring meanwhile.</summary>
    [Fact]
    public async Task A_stopped_controller_holds_nothing_and_goes_on()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(s_options);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        DriverBuffer[] data = [.. Enumerable.Range(0, Batch).Select(_ => Untouched(rig))];
        foreach (MigrationState state in (MigrationState[])[MigrationState.Stop, MigrationState.StopCopy])
        {
            await rig.Client.SetMigrationStateAsync(state, Cancellation);
            Submit(queue, data, 0);
            ushort id = rig.Driver.Submit(
                new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.GetFeatures, Word10 = (uint)NvmeFeature.QueueCount });
            await rig.Client.UnmapAsync(rig.Memory.GuestAddress, rig.Memory.SizeBytes, Cancellation);
            await NvmeMachine.MapAsync(rig.Client, rig);
            Assert.Equal(0, queue.Collect(new NvmeFinished[1]));
            Assert.False(rig.Driver.IsCompleted(id));
            await rig.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
            Assert.Equal(Batch, (await NvmeRig.CollectAsync(queue, Batch)).Count);
            await rig.Driver.WaitAsync(id, Cancellation);
        }

        // a reset leads out, too
        await rig.Client.SetMigrationStateAsync(MigrationState.Stop, Cancellation);
        await rig.Client.ResetAsync(Cancellation);
        await rig.RestartAsync();
        queue = await rig.CreateQueueAsync(1, 32);
        Submit(queue, data, 0);
        Assert.Equal(Batch, (await NvmeRig.CollectAsync(queue, Batch)).Count);
    }

    [Fact]
    public async Task Streams_that_do_not_suit_are_refused_and_a_reset_leads_out()
    {
        using MemoryDisk disk = new(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(s_options, disks: disk);
        await rig.CreateQueueAsync(2, 32);
        List<byte> all = await MigrationStream.LeaveAsync(rig.Client);
        byte[] stream = [.. all];
        using MemoryDisk small = new(NvmeRig.DiskBytes / 2);
        foreach ((Disk other, NvmeOptions options, int blockSize) in ((Disk, NvmeOptions, int)[])[
            (disk, s_options with { Serial = "other" }, 512), (small, s_options, 512), (disk, s_options, 4096),
            (disk, s_options with { QueuePairs = 2 }, 512), (disk, s_options with { QueueSize = 32 }, 512)])
        {
            await using NvmeMachine misfit = await NvmeMachine.StartAsync(other, options, blockSize);
            await RefusedAsync(misfit.Client, stream);
        }

        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        for (int i = 0; i < 30; i++)
        {
            byte[] altered = [.. stream];
            altered[i < 8 ? i : Random.Shared.Next(8, stream.Length)] ^= 0x81;
            await RefusedAsync(there.Client, altered);
        }

        foreach (byte[] bad in (byte[][])[[.. stream, 1], stream[..^1], stream[..7], stream[..60], stream[..100]])
        {
            await RefusedAsync(there.Client, bad);
        }

        await there.ArriveAsync(rig, all);
        Assert.Equal(NvmeStatus.Success, await SetThresholdAsync(rig, 300));

        // a controller that works does not become another
        await RefusedAsync(there.Client, stream);
    }

    [Fact]
    public async Task States_that_cannot_be_are_refused()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(s_options);
        await rig.CreateQueueAsync(1, 32);
        List<byte> all = await MigrationStream.LeaveAsync(rig.Client);
        int state = 8 + BitConverter.ToInt32([.. all], 4) + 8;
        NvmeSnapshot good = NvmeState.Load(rig.Controller, [.. all[state..]]);
        NvmeCompletionRecord completions = good.Completions[0];
        NvmeSubmissionRecord submissions = good.Submissions[0];
        NvmeSnapshot[] bad =
        [
            good with { Configuration = new NvmeConfiguration(good.Configuration.Value | 2) },
            good with { Configuration = new NvmeConfiguration(good.Configuration.Value & ~1u) },
            good with { Configuration = new NvmeConfiguration(good.Configuration.Value | (7 << 11)) },
            good with { Status = (NvmeControllerStatus)0x80 },
            good with { AdminAttributes = 0xffffffff },
            good with { AdminAttributes = 0x003f0000 },
            good with { Events = [0, 0] },
            good with { Events = [0xff, 0, 0] },
            good with { Events = [0, 0, 0, 3] },
            good with { Errors = new byte[7] },
            good with { Errors = [1, 0, 0, 0, 0, 0, 0, 0] },
            good with { Errors = new byte[8 + 6] },
            good with { Counters = [0, 0, -1, 0, 0] },
            good with { Counters = [0, 0, 0, 0] },
            good with { PoweredOn = TimeSpan.FromDays(900_000) },
            good with { Admin = good.Admin! with { Head = 64 } },
            good with { Admin = good.Admin! with { Taken = 5, Tail = 5, CompletionRegister = 6 } },
            good with { Admin = good.Admin! with { Phase = 2 } },
            good with { Admin = good.Admin! with { EventRequests = new ushort[5] } },
            good with { Admin = good.Admin! with { Features = [5] } },
            good with { Admin = good.Admin! with { Features = [4, 4, 7, 1] } },
            good with { Admin = good.Admin! with { Features = [4, 3, 0, 1] } },
            good with { Completions = [] },
            good with { Completions = [completions, completions with { Id = 5 }] },
            good with { Completions = [completions with { Size = 128 }] },
            good with { Completions = [completions with { Size = 1 }] },
            good with { Completions = [completions with { Tail = 32 }] },
            good with { Completions = [completions with { Tail = 3, Head = 2, HeadRegister = 1 }] },
            good with { Completions = [completions with { Vector = 5 }] },
            good with { Completions = [completions with { Address = 64 }] },
            good with { Submissions = [submissions with { Completion = 2 }] },
            good with { Submissions = [submissions with { Head = 32 }] },
            good with { Submissions = [submissions with { TailRegister = 32 }] },
            good with { Submissions = [submissions with { Aborted = [32] }] },
        ];
        Assert.NotNull(NvmeState.Load(rig.Controller, NvmeState.Save(good)));
        Assert.All(bad, one => Assert.Throws<DeviceStateException>(
            () => NvmeState.Load(rig.Controller, NvmeState.Save(one))));
    }

    [Fact]
    public async Task A_controller_that_is_disabled_moves_too()
    {
        using MemoryDisk disk = new(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(s_options, disks: disk);
        await rig.Driver.StopAsync(Cancellation);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        await there.ArriveAsync(rig, stream);
        using NvmeDriver driver = await NvmeDriver.StartAsync(there.Client, rig.Memory, true, Cancellation);
        NvmeDriverQueue queue = await driver.CreateQueueAsync(1, 16, true, Cancellation);
        Assert.True(queue.TryRead(1, 1, 0, 8, rig.Allocate()));
        queue.Submit();
        Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
    }

    private static DriverBuffer Untouched(NvmeRig rig)
    {
        DriverBuffer buffer = rig.Allocate();
        buffer.Span.Fill(0xdd);
        return buffer;
    }

    private static Span<byte> Bytes(NvmeRig rig) => rig.Memory.Memory.Regions[0].Segment.Span;

    private static void Submit(NvmeDriverQueue queue, DriverBuffer[] data, int first)
    {
        for (int i = first; i < first + Batch; i++)
        {
            Assert.True(queue.TryRead((ushort)i, 1, (ulong)(i % Places * (Page / 512)), Page / 512, data[i]));
        }

        queue.Submit();
    }

    private async Task CollectAsync(NvmeDriverQueue queue, DriverBuffer[] data)
    {
        foreach (NvmeFinished one in await NvmeRig.CollectAsync(queue, Batch))
        {
            Assert.Equal(0, one.Status);
            Assert.True(data[one.Id].Span.SequenceEqual(_content.AsSpan(one.Id % Places * Page, Page)));
        }
    }

    private async Task FillAsync(NvmeRig rig, NvmeDriverQueue queue)
    {
        DriverBuffer buffer = rig.Allocate();
        for (int place = 0; place < Places; place++)
        {
            _content.AsSpan(place * Page, Page).CopyTo(buffer.Span);
            Assert.True(queue.TryWrite(1, 1, (ulong)(place * (Page / 512)), Page / 512, buffer));
            queue.Submit();
            Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
        }
    }

    private static Task<NvmeStatus> SetThresholdAsync(NvmeRig rig, uint value) => rig.AdminAsync(new NvmeCommand
    {
        Opcode = (byte)NvmeAdminOpcode.SetFeatures, Word10 = (uint)NvmeFeature.TemperatureThreshold, Word11 = value,
    });

    private static async Task<uint> GetThresholdAsync(NvmeRig rig) => (await rig.Driver.ExecuteAsync(
        new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.GetFeatures, Word10 = (uint)NvmeFeature.TemperatureThreshold,
        },
        Cancellation)).Result;

    private static async Task RefusedAsync(VfioUserClient client, byte[] stream)
    {
        VfioUserException? refusal = null;
        try
        {
            await client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
            await client.WriteMigrationDataAsync(stream, Cancellation);
            await client.SetMigrationStateAsync(MigrationState.Stop, Cancellation);
        }
        catch (VfioUserException error)
        {
            refusal = error;
        }

        Assert.NotNull(refusal);
        await client.ResetAsync(Cancellation);
        Assert.Equal(MigrationState.Running, await client.GetMigrationStateAsync(Cancellation));
    }

    /// <returns>Pages that were dirty.</returns>
    private async Task<int> CopyDirtyAsync(NvmeRig rig)
    {
        byte[] bits = await rig.Client.TakeDirtyLogAsync(
            rig.Memory.GuestAddress, rig.Memory.SizeBytes, cancellation: Cancellation);
        int count = 0;
        for (int page = 0; page < (int)rig.Memory.SizeBytes / Page; page++)
        {
            if ((bits[page / 8] >> (page % 8) & 1) != 0)
            {
                Bytes(rig).Slice(page * Page, Page).CopyTo(_copy.AsSpan(page * Page));
                count++;
            }
        }

        return count;
    }

    /// <summary>What the controller wrote, and nobody else, is in the copy: data, and completions.</summary>
    private void RequireCopied(NvmeRig rig, NvmeDriverQueue[] queues, DriverBuffer[] data)
    {
        (ulong Address, int Bytes)[] ranges =
        [
            .. data.Select(one => (one.GuestAddress, Page)),
            .. queues.Select(one => (one.Rings.CompletionAddress, (int)one.Rings.Size * NvmeCompletion.Bytes)),
            (rig.Driver.Admin.CompletionAddress, (int)rig.Driver.Admin.Size * NvmeCompletion.Bytes),
        ];
        foreach ((ulong address, int bytes) in ranges)
        {
            int at = (int)(address - rig.Memory.GuestAddress);
            Assert.True(
                Bytes(rig).Slice(at, bytes).SequenceEqual(_copy.AsSpan(at, bytes)), $"0x{address:x}, {bytes} bytes");
        }
    }
}

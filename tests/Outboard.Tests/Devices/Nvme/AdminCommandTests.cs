// Admin commands: queues, identify, features, log pages, aborts, and what is refused.
using System.Text;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class AdminCommandTests : IAsyncLifetime
{
    private NvmeRig _rig = null!;

    public async ValueTask InitializeAsync() => _rig = await NvmeRig.StartAsync();

    public ValueTask DisposeAsync() => _rig.DisposeAsync();

    [Fact]
    public async Task Queues_that_cannot_be_made()
    {
        ulong page = _rig.Allocate(65536).GuestAddress;
        foreach ((NvmeStatus status, NvmeCommand command) in ((NvmeStatus, NvmeCommand)[])
        [
            (NvmeStatus.InvalidQueueIdentifier, Completion(0, 16, page)),
            (NvmeStatus.InvalidQueueIdentifier, Completion(5, 16, page)),
            (NvmeStatus.InvalidQueueIdentifier, Completion(0xffff, 16, page)),
            (NvmeStatus.InvalidQueueSize, Completion(1, 1, page)),
            (NvmeStatus.InvalidQueueSize, Completion(1, 65, page)),
            (NvmeStatus.InvalidQueueSize, Completion(1, 65536, page)),
            (NvmeStatus.InvalidField, Completion(1, 16, page) with { Word11 = 2 }),
            (NvmeStatus.PrpOffsetInvalid, Completion(1, 16, page + 64)),
            (NvmeStatus.InvalidInterruptVector, Completion(1, 16, page) with { Word11 = (5 << 16) | 3 }),
            (NvmeStatus.InvalidField, Completion(1, 16, page) with { Flags = 1 << 6 }),
            (NvmeStatus.CompletionQueueInvalid, Submission(1, 16, page, 1)),
            (NvmeStatus.InvalidQueueIdentifier, Submission(1, 16, page, 0)),
            (NvmeStatus.InvalidQueueIdentifier, Submission(1, 16, page, 9)),
            (NvmeStatus.Success, Completion(2, 16, page)),
            (NvmeStatus.InvalidQueueIdentifier, Completion(2, 16, page)),
            (NvmeStatus.InvalidQueueIdentifier, Submission(0, 16, page, 2)),
            (NvmeStatus.InvalidQueueIdentifier, Submission(5, 16, page, 2)),
            (NvmeStatus.InvalidQueueSize, Submission(1, 1, page, 2)),
            (NvmeStatus.InvalidQueueSize, Submission(1, 128, page, 2)),
            (NvmeStatus.InvalidField, Submission(1, 16, page, 2) with { Word11 = 2 << 16 }),
            (NvmeStatus.PrpOffsetInvalid, Submission(1, 16, page + 8, 2)),
            (NvmeStatus.Success, Submission(1, 16, page, 2)),
            (NvmeStatus.InvalidQueueIdentifier, Submission(1, 16, page, 2)),
            (NvmeStatus.Success, Submission(3, 16, page, 2)),
            (NvmeStatus.InvalidQueueDeletion, Delete(NvmeAdminOpcode.DeleteCompletionQueue, 2)),
            (NvmeStatus.InvalidQueueIdentifier, Delete(NvmeAdminOpcode.DeleteCompletionQueue, 1)),
            (NvmeStatus.InvalidQueueIdentifier, Delete(NvmeAdminOpcode.DeleteCompletionQueue, 0)),
            (NvmeStatus.InvalidQueueIdentifier, Delete(NvmeAdminOpcode.DeleteSubmissionQueue, 2)),
            (NvmeStatus.InvalidQueueIdentifier, Delete(NvmeAdminOpcode.DeleteSubmissionQueue, 0)),
            (NvmeStatus.Success, Delete(NvmeAdminOpcode.DeleteSubmissionQueue, 1)),
            (NvmeStatus.InvalidQueueIdentifier, Delete(NvmeAdminOpcode.DeleteSubmissionQueue, 1)),
            (NvmeStatus.InvalidQueueDeletion, Delete(NvmeAdminOpcode.DeleteCompletionQueue, 2)),
            (NvmeStatus.Success, Delete(NvmeAdminOpcode.DeleteSubmissionQueue, 3)),
            (NvmeStatus.Success, Delete(NvmeAdminOpcode.DeleteCompletionQueue, 2)),
        ])
        {
            Assert.Equal(status, await _rig.AdminAsync(command));
        }
    }

    [Fact]
    public async Task The_controller_tells_who_it_is()
    {
        byte[] data = await _rig.Driver.IdentifyAsync(NvmeIdentify.Controller, 0);
        Assert.Equal("outboard".PadRight(20), Encoding.ASCII.GetString(data, 4, 20));
        Assert.Equal("Outboard NVMe Controller".PadRight(40), Encoding.ASCII.GetString(data, 24, 40));
        Assert.Equal(8, data[77]);
        Assert.Equal(2u, BitConverter.ToUInt32(data, 516));
        Assert.StartsWith("nqn.2014-08.org.nvmexpress:uuid:", Encoding.ASCII.GetString(data, 768, 68));
        Assert.Equal(0x66, data[512]);
        Assert.Equal(0x44, data[513]);
        Assert.Equal(0x1d, BitConverter.ToUInt16(data, 520));
    }

    [Fact]
    public async Task Namespaces_are_described_and_listed()
    {
        byte[] data = await _rig.Driver.IdentifyAsync(NvmeIdentify.Namespace, 1);
        Assert.Equal(NvmeRig.DiskBytes / 512, BitConverter.ToInt64(data));
        Assert.Equal(9, data[130]);
        byte[] identity = data[104..120];
        byte[] descriptors = await _rig.Driver.IdentifyAsync(NvmeIdentify.NamespaceDescriptors, 1);
        Assert.Equal([2, 16, 0, 0, .. identity, 3, 16, 0, 0, .. identity, 4, 1, 0, 0, 0, 0], descriptors[..46]);
        Assert.NotEqual(identity, (await _rig.Driver.IdentifyAsync(NvmeIdentify.Namespace, 2))[104..120]);
        byte[] every = await _rig.Driver.IdentifyAsync(NvmeIdentify.Namespace, uint.MaxValue);
        Assert.Equal(0, BitConverter.ToInt64(every));
        Assert.Equal(9, every[130]);
        foreach ((uint after, uint[] expected) in ((uint, uint[])[])
            [(0, [1, 2, 0]), (1, [2, 0]), (2, [0]), (700, [0])])
        {
            byte[] list = await _rig.Driver.IdentifyAsync(NvmeIdentify.ActiveNamespaces, after);
            Assert.Equal(
                expected, Enumerable.Range(0, expected.Length).Select(i => BitConverter.ToUInt32(list, i * 4)));
        }

        await _rig.Driver.IdentifyAsync(NvmeIdentify.CommandSetController, 0);
        await _rig.Driver.IdentifyAsync(NvmeIdentify.CommandSetNamespace, 2);
    }

    [Theory]
    [InlineData(0, 0, NvmeStatus.InvalidNamespace)]
    [InlineData(0, 3, NvmeStatus.InvalidNamespace)]
    [InlineData(2, uint.MaxValue, NvmeStatus.InvalidNamespace)]
    [InlineData(2, uint.MaxValue - 1, NvmeStatus.InvalidNamespace)]
    [InlineData(3, 0, NvmeStatus.InvalidNamespace)]
    [InlineData(3, uint.MaxValue, NvmeStatus.InvalidNamespace)]
    [InlineData(4, 1, NvmeStatus.InvalidField)]
    [InlineData(0x10, 0, NvmeStatus.InvalidField)]
    [InlineData(0xff, 0, NvmeStatus.InvalidField)]
    public async Task What_cannot_be_identified(uint what, uint number, object status) => Assert.Equal(
        (NvmeStatus)status,
        await _rig.AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.Identify, Namespace = number, Word10 = what,
            Pointer1 = _rig.Driver.Data.GuestAddress,
        }));

    [Fact]
    public async Task Data_of_admin_commands_may_lie_anywhere_or_nowhere()
    {
        NvmeCommand identify = new() { Opcode = (byte)NvmeAdminOpcode.Identify, Word10 = 1 };
        ulong pages = _rig.Allocate(8192).GuestAddress;
        Assert.Equal(
            NvmeStatus.Success,
            await _rig.AdminAsync(identify with { Pointer1 = pages + 256, Pointer2 = pages + 4096 }));
        Assert.Equal(
            NvmeStatus.PrpOffsetInvalid, await _rig.AdminAsync(identify with { Pointer1 = pages + 1 }));
        Assert.Equal(
            NvmeStatus.PrpOffsetInvalid, await _rig.AdminAsync(identify with { Pointer1 = pages + 256, Pointer2 = 8 }));
        Assert.Equal(NvmeStatus.DataTransferError, await _rig.AdminAsync(identify with { Pointer1 = 0x4000 }));
        Assert.Equal(NvmeStatus.InvalidField, await _rig.AdminAsync(identify with { Pointer1 = pages, Flags = 0x40 }));
        Assert.Equal(NvmeStatus.InvalidField, await _rig.AdminAsync(identify with { Pointer1 = pages, Flags = 1 }));
    }

    [Theory]
    [InlineData(0x10)] // firmware commit
    [InlineData(0x0d)] // namespace management
    [InlineData(0x18)] // keep alive
    [InlineData(0x80)] // format
    [InlineData(0x84)] // sanitize
    [InlineData(0xff)]
    public async Task Commands_that_are_not_served(byte opcode) =>
        Assert.Equal(NvmeStatus.InvalidOpcode, await _rig.AdminAsync(new NvmeCommand { Opcode = opcode }));

    [Theory]
    [InlineData(0x01, 0x03020106, 6, 0x03020106)]
    [InlineData(0x02, 0, 0, 0)]
    [InlineData(0x04, 350, 343, 350)]
    [InlineData(0x04, 0x100000 | 280, 0, 280)]
    [InlineData(0x05, 7, 0, 7)]
    [InlineData(0x06, 0, 1, 0)]
    [InlineData(0x08, 0x0105, 0, 0x0105)]
    [InlineData(0x09, 0x10003, 3, 0x10003)]
    [InlineData(0x0a, 1, 0, 1)]
    [InlineData(0x0b, 0x100, 0, 0x100)]
    public async Task Features_are_kept_until_the_controller_is_reset(
        uint feature, uint value, uint initial, uint expected)
    {
        Assert.Equal((NvmeStatus.Success, initial), await GetAsync(feature, value));
        Assert.Equal(NvmeStatus.Success, await SetAsync(feature, value));
        Assert.Equal((NvmeStatus.Success, expected), await GetAsync(feature, value));
        Assert.Equal((NvmeStatus.Success, initial), await GetAsync(feature | (1 << 8), value));
        Assert.Equal((NvmeStatus.Success, initial), await GetAsync(feature | (2 << 8), value));
        Assert.Equal((NvmeStatus.Success, 4u), await GetAsync(feature | (3 << 8), value));
        Assert.Equal(NvmeStatus.FeatureNotSaveable, await SetAsync(feature | (1u << 31), value));
        await _rig.RestartAsync();
        Assert.Equal((NvmeStatus.Success, initial), await GetAsync(feature, value));
    }

    [Theory]
    [InlineData(0x00, 0)]
    [InlineData(0x03, 0)]
    [InlineData(0x0c, 0)]
    [InlineData(0x0f, 0)]
    [InlineData(0x02, 1)]
    [InlineData(0x04, 0x00010000)]
    [InlineData(0x04, 0x00200000)]
    [InlineData(0x05, 0x00010000)]
    [InlineData(0x07, 0x0000ffff)]
    [InlineData(0x07, 0xffff0000)]
    [InlineData(0x09, 5)]
    [InlineData(0x0b, 0x200)]
    public async Task Features_that_cannot_be_set(uint feature, uint value) =>
        Assert.Equal(NvmeStatus.InvalidField, await SetAsync(feature, value));

    [Fact]
    public async Task Queues_are_granted_once()
    {
        Assert.Equal((NvmeStatus.Success, 0x30003u), await GetAsync(7, 0));
        NvmeCompletion granted = await _rig.Driver.ExecuteAsync(Set(7, 0x00000001));
        Assert.Equal(0x10001u, granted.Result);
        ulong page = _rig.Allocate(8192).GuestAddress;
        Assert.Equal(NvmeStatus.InvalidQueueIdentifier, await _rig.AdminAsync(Completion(3, 16, page)));
        Assert.Equal(NvmeStatus.Success, await _rig.AdminAsync(Completion(2, 16, page)));
        Assert.Equal(NvmeStatus.CommandSequenceError, await SetAsync(7, 0));
        Assert.Equal((NvmeStatus.InvalidField, 0u), await GetAsync(7 | (4 << 8), 0));
    }

    [Fact]
    public async Task Log_pages()
    {
        NvmeDriverQueue queue = await _rig.CreateQueueAsync();
        foreach (NvmeIoOpcode opcode in (NvmeIoOpcode[])[NvmeIoOpcode.Write, NvmeIoOpcode.Read, NvmeIoOpcode.Read])
        {
            Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, _rig.Move(opcode, _rig.Allocate(8192), 0)));
        }

        await _rig.Driver.DeleteQueueAsync(1);
        byte[] health = await _rig.ReadLogAsync(NvmeLogPage.Health, 512);
        Assert.Equal(
            [1L, 0, 1, 0, 2, 0, 1], Enumerable.Range(0, 7).Select(i => BitConverter.ToInt64(health, 32 + (i * 8))));
        Assert.Equal(1, (await _rig.ReadLogAsync(NvmeLogPage.Firmware, 512))[0]);
        byte[] effects = await _rig.ReadLogAsync(NvmeLogPage.CommandEffects, 4096);
        Assert.Equal(1u, BitConverter.ToUInt32(effects, 6 * 4));
        Assert.Equal(0u, BitConverter.ToUInt32(effects, 0x80 * 4));
        Assert.Equal(3u, BitConverter.ToUInt32(effects, 1024 + 4));
        Assert.Equal(new byte[1024], await _rig.ReadLogAsync(NvmeLogPage.Errors, 1024));
    }

    [Theory]
    [InlineData(0x00, 0, 0, NvmeStatus.InvalidLogPage)]
    [InlineData(0x06, 0, 0, NvmeStatus.InvalidLogPage)]
    [InlineData(0xc0, 0, 0, NvmeStatus.InvalidLogPage)]
    [InlineData(0x02, 0, 2, NvmeStatus.InvalidField)]
    [InlineData(0x02, 0, 516, NvmeStatus.InvalidField)]
    [InlineData(0x02, 0xffff, 0, NvmeStatus.InvalidField)]
    public async Task Log_pages_that_cannot_be_read(uint page, uint upperCount, uint offset, object status)
    {
        NvmeCommand command = new()
        {
            Opcode = (byte)NvmeAdminOpcode.GetLogPage, Pointer1 = _rig.Driver.Data.GuestAddress,
            Word10 = page | (3 << 16), Word11 = upperCount, Word12 = offset,
        };
        Assert.Equal((NvmeStatus)status, await _rig.AdminAsync(command));
    }

    [Fact]
    public async Task A_part_of_a_log_page()
    {
        NvmeStatus status = await _rig.AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.GetLogPage, Pointer1 = _rig.Driver.Data.GuestAddress,
            Word10 = (uint)NvmeLogPage.Firmware | (1 << 16), Word12 = 8,
        });
        Assert.Equal(NvmeStatus.Success, status);
        Assert.Equal("1.0     "u8, _rig.Driver.Data.Span[..8]);
    }

    private static NvmeCommand Completion(uint id, uint size, ulong address) => new()
    {
        Opcode = (byte)NvmeAdminOpcode.CreateCompletionQueue, Pointer1 = address, Word10 = ((size - 1) << 16) | id,
        Word11 = 1,
    };

    private static NvmeCommand Submission(uint id, uint size, ulong address, uint completion) => new()
    {
        Opcode = (byte)NvmeAdminOpcode.CreateSubmissionQueue, Pointer1 = address, Word10 = ((size - 1) << 16) | id,
        Word11 = (completion << 16) | 1,
    };

    private static NvmeCommand Delete(NvmeAdminOpcode opcode, uint id) => new() { Opcode = (byte)opcode, Word10 = id };

    private static NvmeCommand Set(uint feature, uint value) => new()
    {
        Opcode = (byte)NvmeAdminOpcode.SetFeatures, Word10 = feature, Word11 = value,
    };

    private Task<NvmeStatus> SetAsync(uint feature, uint value) => _rig.AdminAsync(Set(feature, value));

    private async Task<(NvmeStatus Status, uint Result)> GetAsync(uint feature, uint value)
    {
        NvmeCompletion completion = await _rig.Driver.ExecuteAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.GetFeatures, Word10 = feature, Word11 = value,
        });
        return (completion.Status, completion.Result);
    }
}

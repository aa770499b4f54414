// What holds for every command of a client's: the table's policy, one reply or none. A class for each command adds the
// rest.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser;

/// <summary>Tests of one command.</summary>
public abstract class CommandTest : ServerTest
{
    /// <summary>The command.</summary>
    protected abstract VfioUserCommand Command { get; }

    /// <summary>A payload that is carried out after <see cref="PrepareAsync"/>, more than once.</summary>
    protected abstract byte[] GoodPayload { get; }

    /// <summary>Brings a connection to where the command is in place.</summary>
    private protected virtual Task PrepareAsync(WireClient client) => Task.CompletedTask;

    private CommandRow Row => CommandTable.Find(Command)!;

    [Fact]
    public async Task Payload_of_another_size_is_refused()
    {
        using WireClient client = await ConnectPreparedAsync();
        for (int size = 0; size < Row.MinBytes; size++)
        {
            await client.RefusedAsync(WireClient.Inval, Command, GoodPayload[..size]);
        }

        if (Row.MaxBytes < MessageHeader.MaxPayloadBytes)
        {
            byte[] payload = new byte[Row.MaxBytes + 1];
            GoodPayload.CopyTo(payload, 0);
            await client.RefusedAsync(WireClient.Inval, Command, payload);
        }

        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task Descriptors_that_do_not_belong_are_refused()
    {
        using WireClient client = await ConnectPreparedAsync();
        using EventFd extra = new();
        FileDescriptor[] many = [.. Enumerable.Repeat(extra.Descriptor, Row.MaxDescriptors + 1)];
        await client.RefusedAsync(WireClient.Inval, Command, GoodPayload, many);
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task Before_negotiation_it_is_refused_and_the_connection_ends()
    {
        using WireClient client = Connect();
        await client.RefusedAsync(WireClient.Inval, Command, GoodPayload);
        await client.ExpectClosedAsync();
    }

    [Fact]
    public async Task Good_and_bad_ones_that_want_no_reply_have_none()
    {
        using WireClient client = await ConnectPreparedAsync();
        await client.SendAsync(Command, GoodPayload, MessageFlags.NoReply);
        await client.SendAsync(Command, new byte[Row.MaxBytes >= 4096 ? 0 : Row.MaxBytes + 1], MessageFlags.NoReply);
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task Good_ones_in_a_row_are_answered_in_order()
    {
        using WireClient client = await ConnectPreparedAsync();
        ushort first = await client.SendAsync(Command, GoodPayload);
        ushort second = await client.SendAsync(Command, GoodPayload);
        Assert.Equal(first, (await client.ReceiveAsync()).Header.Id);
        Assert.Equal(second, (await client.ReceiveAsync()).Header.Id);
        await client.ExpectServedAsync();
    }

    [Theory]
    [InlineData(1u)]
    [InlineData(2u)]
    [InlineData(0xfu)]
    public async Task What_is_no_command_is_refused(uint type)
    {
        using WireClient client = await ConnectPreparedAsync();
        ushort id = await client.SendAsync(Command, GoodPayload, (MessageFlags)type);
        await client.FailureAsync(WireClient.Inval, Command, id);
        await client.ExpectServedAsync();
    }

    private protected async Task<WireClient> ConnectPreparedAsync()
    {
        WireClient client = await ConnectNegotiatedAsync();
        await PrepareAsync(client);
        return client;
    }

    private protected async Task ExpectRefusedAsync(
        byte[] payload, int errno = WireClient.Inval, params FileDescriptor[] descriptors)
    {
        using WireClient client = await ConnectPreparedAsync();
        await client.RefusedAsync(errno, Command, payload, descriptors);
        await client.ExpectServedAsync();
    }
}

// Servers that answer wrongly, late or not at all: the client fails the command, and nothing hangs.
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Client;

public sealed class HostileServerTests : IAsyncLifetime
{
    private readonly List<Task> _running = [];

    /// <summary>For a server that is silent on purpose; it still has to be there in time for the negotiation.</summary>
    private static readonly VfioUserClientOptions s_impatient = new() { AnswerLimit = TimeSpan.FromSeconds(1) };

    private static readonly VfioUserClientOptions s_patient = new() { AnswerLimit = TimeSpan.FromSeconds(20) };

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync() => default;

    /// <summary>What a test expects of the client is part of it.</summary>
    public async ValueTask DisposeAsync() => await Task.WhenAll(_running).WaitAsync(TimeSpan.FromSeconds(20));

    [Theory]
    [InlineData(0, 0, "nonsense")]
    [InlineData(1, 0, "{}")]
    [InlineData(0, 3, "{}")]
    [InlineData(0, 2, """{"capabilities":{"max_msg_fds":"x"}}""")]
    [InlineData(0, 2, """{"capabilities":{"twin_socket":{"supported":true}}}""")]
    [InlineData(0, 2, """{"capabilities":{"twin_socket":{"supported":true,"fd_index":4}}}""")]
    public async Task Negotiations_that_fail(ushort major, ushort minor, string json)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        using WireClient server = new(theirs);
        Task<VfioUserClient> connecting = VfioUserClient.StartAsync(ours, s_patient, Cancellation);
        WireMessage asked = await server.ReceiveAsync();
        await AnswerAsync(server, asked, WireClient.Version(json, major, minor));
        await Assert.ThrowsAnyAsync<IOException>(() => connecting);
    }

    [Fact]
    public async Task Answers_that_are_too_short_or_to_something_else()
    {
        byte[][] payloads = [[], new byte[8], [.. new byte[16], 1, 2, 3]];
        foreach (byte[] payload in payloads)
        {
            using WireClient server = await ServeAsync(async client =>
                await Assert.ThrowsAnyAsync<IOException>(() => client.ReadAsync(0, 0, new byte[4], Cancellation)));
            await AnswerAsync(server, await server.ReceiveAsync(), payload);
        }

        using WireClient other = await ServeAsync(async client =>
            await Assert.ThrowsAnyAsync<IOException>(() => client.GetInfoAsync(Cancellation)));
        WireMessage asked = await other.ReceiveAsync();
        await other.SendRawAsync(WireClient.Bytes(asked.Header with
        {
            Command = VfioUserCommand.DeviceReset,
            SizeBytes = 16,
            Flags = MessageFlags.Reply,
        }));
    }

    /// <summary>libvfio-user answers in the size that was asked for, whatever there is of data in it.</summary>
    [Theory]
    [InlineData(0, 16, 0)]
    [InlineData(5, 16, 5)]
    [InlineData(16, 16, 16)]
    [InlineData(5, 5, 5)]
    [InlineData(9, 8, -1)]
    [InlineData(17, 17, -1)]
    [InlineData(uint.MaxValue, 16, -1)]
    public async Task A_part_of_a_stream_is_as_long_as_the_server_says(uint announced, int came, int taken)
    {
        using WireClient server = await ServeAsync(async client =>
        {
            Task<int> reading = client.ReadMigrationDataAsync(new byte[16], Cancellation);
            if (taken < 0)
            {
                await Assert.ThrowsAnyAsync<IOException>(() => reading);
            }
            else
            {
                Assert.Equal(taken, await reading);
            }
        });
        await AnswerAsync(
            server, await server.ReceiveAsync(),
            [.. WireClient.Bytes(new MigrationDataPayload(announced, announced)), .. new byte[came]]);
    }

    [Fact]
    public async Task No_answer_or_one_to_nothing_ends_the_connection()
    {
        using WireClient silent = await ServeAsync(
            async client =>
            {
                await Assert.ThrowsAnyAsync<IOException>(() => client.GetInfoAsync(Cancellation));
                await Assert.ThrowsAnyAsync<IOException>(() => client.GetInfoAsync(Cancellation));
            },
            s_impatient);
        await silent.ReceiveAsync();
        await silent.ExpectClosedAsync();
        using WireClient confused = await ServeAsync(async client =>
            await Assert.ThrowsAnyAsync<IOException>(() => client.GetInfoAsync(Cancellation)));
        WireMessage asked = await confused.ReceiveAsync();
        await confused.SendRawAsync(WireClient.Bytes(new MessageHeader(
            (ushort)(asked.Header.Id + 1), asked.Header.Command, 16, MessageFlags.Reply, 0)));
        await confused.ExpectClosedAsync();
    }

    [Fact]
    public async Task Commands_of_the_server_that_cannot_be_carried_out_are_refused()
    {
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using WireClient server = await ServeAsync(_ => done.Task);
        await server.RefusedAsync(14, VfioUserCommand.DmaRead, WireClient.Bytes(new DmaAccessPayload(0, 4)));
        await server.RefusedAsync(
            22, VfioUserCommand.DmaRead, WireClient.Bytes(new DmaAccessPayload(0, ulong.MaxValue)));
        await server.RefusedAsync(22, VfioUserCommand.DmaWrite, WireClient.Bytes(new DmaAccessPayload(0, 4)));
        await server.RefusedAsync(38, VfioUserCommand.DmaRead, new byte[8]);
        await server.RefusedAsync(38, VfioUserCommand.DeviceReset, []);
        done.SetResult();
    }

    private async Task<WireClient> ServeAsync(Func<VfioUserClient, Task> test, VfioUserClientOptions? options = null)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        WireClient server = new(theirs);
        Task<VfioUserClient> connecting = VfioUserClient.StartAsync(ours, options ?? s_patient, Cancellation);
        await AnswerAsync(server, await server.ReceiveAsync(), WireClient.Version("{}"));
        VfioUserClient client = await connecting;
        _running.Add(Task.Run(async () =>
        {
            await using (client)
            {
                await test(client);
            }
        }));
        return server;
    }

    private static Task AnswerAsync(WireClient server, WireMessage asked, byte[] payload) =>
        server.SendRawAsync([
            .. WireClient.Bytes(new MessageHeader(
                asked.Header.Id, asked.Header.Command, (uint)(16 + payload.Length), MessageFlags.Reply, 0)),
            .. payload,
        ]);
}

// VERSION: the first command, and once.
using System.Text;
using System.Text.Json;
using Outboard.Linux.Events;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class VersionTests : ServerTest
{
    /// <summary>QEMU reads the reply into the buffer of its own request.</summary>
    private const int QemuReplyBytes = 214;

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"capabilities":{}}""")]
    [InlineData("""{"capabilities":{"max_msg_fds":1024}}""")]
    [InlineData("""{"capabilities":{"unknown":[1,{"a":null}]},"other":"x"}""")]
    [InlineData("""{"capabilities":{"twin_socket":{}}}""")]
    [InlineData(null)]
    public async Task Is_agreed_upon(string? json)
    {
        using WireClient client = Connect();
        WireMessage reply = await client.NegotiateAsync(json);
        Assert.Equal(new VersionPayload(0, 0), reply.Read<VersionPayload>());
        Assert.Equal(
            "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0",
            Encoding.UTF8.GetString(reply.Payload, 4, reply.Payload.Length - 4));
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task Reply_to_qemu_names_what_was_proposed_and_fits_its_buffer()
    {
        using WireClient client = Connect();
        WireMessage reply = await client.NegotiateAsync();
        Assert.InRange(reply.Header.SizeBytes, 16u, (uint)QemuReplyBytes);
        using JsonDocument json = JsonDocument.Parse(reply.Payload.AsMemory(4..^1));
        JsonElement capabilities = json.RootElement.GetProperty("capabilities");
        Assert.Equal(64, capabilities.GetProperty("max_dma_maps").GetInt32());
        Assert.Equal(4096, capabilities.GetProperty("pgsizes").GetInt32());
        Assert.True(capabilities.GetProperty("write_multiple").GetBoolean());
        Assert.Equal(4096, capabilities.GetProperty("migration").GetProperty("pgsize").GetInt32());
        Assert.False(capabilities.TryGetProperty("twin_socket", out _));
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 1)]
    [InlineData(2, 2)]
    [InlineData(999, 2)]
    public async Task Minor_version_is_the_smaller_one(ushort proposed, ushort agreed)
    {
        using WireClient client = Connect();
        WireMessage reply = await client.CallAsync(
            VfioUserCommand.Version, WireClient.Version("{}", minor: proposed));
        Assert.Equal(new VersionPayload(0, agreed), reply.Read<VersionPayload>());
    }

    [Theory]
    [InlineData("{")]
    [InlineData("\"")]
    [InlineData("[]")]
    [InlineData("nonsense")]
    [InlineData("""{"capabilities":"x"}""")]
    [InlineData("""{"capabilities":{"max_msg_fds":"foo"}}""")]
    [InlineData("""{"capabilities":{"max_msg_fds":-1}}""")]
    [InlineData("""{"capabilities":{"max_msg_fds":1025}}""")]
    [InlineData("""{"capabilities":{"max_msg_fds":1e300}}""")]
    [InlineData("""{"capabilities":{"max_data_xfer_size":-1}}""")]
    [InlineData("""{"capabilities":{"max_data_xfer_size":null}}""")]
    [InlineData("""{"capabilities":{"migration":"x"}}""")]
    [InlineData("""{"capabilities":{"migration":{"pgsize":"foo"}}}""")]
    [InlineData("""{"capabilities":{"migration":{"pgsize":4095}}}""")]
    [InlineData("""{"capabilities":{"twin_socket":1}}""")]
    [InlineData("""{"capabilities":{"twin_socket":{"supported":1}}}""")]
    [InlineData("""{"capabilities":{"write_multiple":"yes"}}""")]
    [InlineData("""{"a":[[[[[[[[[[[[1]]]]]]]]]]]]}""")]
    public Task Bad_capabilities_end_the_connection(string json) => ExpectEndAsync(WireClient.Version(json));

    [Fact]
    public async Task Bad_messages_end_the_connection()
    {
        await ExpectEndAsync([]);
        await ExpectEndAsync([0, 0, 0]);
        await ExpectEndAsync(WireClient.Version("{}", major: 1));
        await ExpectEndAsync(WireClient.Version("{}", major: 999));
        await ExpectEndAsync(WireClient.Version("{}")[..^1]);
        await ExpectEndAsync([0, 0, 0, 0, 0xff, 0xfe, 0]);
        await ExpectEndAsync(new byte[4 + VersionCapabilities.MaxJsonBytes + 1]);
    }

    [Fact]
    public async Task Descriptors_end_the_connection()
    {
        using EventFd extra = new();
        using WireClient client = Connect();
        await client.RefusedAsync(
            WireClient.Inval, VfioUserCommand.Version, WireClient.Version("{}"), extra.Descriptor);
        await client.ExpectClosedAsync();
    }

    [Fact]
    public async Task A_second_one_is_refused()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.RefusedAsync(WireClient.Inval, VfioUserCommand.Version, WireClient.Version("{}"));
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task A_second_socket_comes_when_it_was_proposed()
    {
        using WireClient client = Connect();
        WireMessage reply = await client.NegotiateAsync(
            """{"capabilities":{"max_msg_fds":1,"twin_socket":{"supported":true}}}""");
        using JsonDocument json = JsonDocument.Parse(reply.Payload.AsMemory(4..^1));
        JsonElement twin = json.RootElement.GetProperty("capabilities").GetProperty("twin_socket");
        Assert.True(twin.GetProperty("supported").GetBoolean());
        Assert.Equal(0, twin.GetProperty("fd_index").GetInt32());
        using UnixSocket socket = new(Assert.Single(reply.Descriptors));
        await client.ExpectServedAsync();
    }

    private async Task ExpectEndAsync(byte[] payload)
    {
        using WireClient client = Connect();
        await client.RefusedAsync(WireClient.Inval, VfioUserCommand.Version, payload);
        await client.ExpectClosedAsync();
    }
}

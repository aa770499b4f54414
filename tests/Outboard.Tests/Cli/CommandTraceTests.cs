// "outboard trace --vfio-user" as a process: text for people, an object on each line for programs.
using System.Runtime.InteropServices;
using System.Text.Json;
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.Tests.VfioUser;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class CommandTraceTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Text_shows_fields_by_name()
    {
        await using OutboardProcess card =
            OutboardProcess.Start("test-card", $"--vfio-user-socket={_folder["s"]}", "--quiet");
        await using OutboardProcess trace = OutboardProcess.Start(
            "trace", "--vfio-user", $"--listen={_folder["t"]}", $"--connect={_folder["s"]}");
        await card.ListensAsync(_folder["s"]);
        await trace.ListensAsync(_folder["t"]);
        Outcome inspected = await OutboardProcess.RunAsync("inspect", $"--vfio-user-socket={_folder["t"]}");
        Assert.Equal(0, inspected.ExitCode);
        trace.Signal("TERM");
        Outcome outcome = await trace.EndAsync();
        Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
        Assert.Matches(@" C>S  #1 VERSION id=\d+ major=0 minor=\d capabilities=""\{.*max_msg_fds", outcome.Output);
        Assert.Matches(@" S>C  #\d+ VERSION id=\d+ reply to #1 after \d+ us: major=0", outcome.Output);
        Assert.Matches(@"DEVICE_GET_INFO id=\d+ reply.*flags=0x3\(RESET\|PCI\) num_regions=9", outcome.Output);
        Assert.Matches(
            @"DEVICE_GET_REGION_INFO id=\d+ reply.*\(READ\|WRITE\|MMAP\|CAPS\).*areas=\[\{offset=0x1000 size=0x1000\}",
            outcome.Output);
        Assert.Matches(@"REGION_READ id=\d+ reply.*region=7 .*data=0df0577e", outcome.Output);
        Assert.DoesNotContain("!!", outcome.Output, StringComparison.Ordinal);
    }

    /// <summary>Each command of the table, the server's two included, is decoded in both directions.</summary>
    [Fact]
    public async Task Json_has_the_fields_of_every_command()
    {
        await using OutboardProcess card =
            OutboardProcess.Start("test-card", $"--vfio-user-socket={_folder["s"]}", "--quiet");
        await card.ListensAsync(_folder["s"]);
        await using OutboardProcess trace = OutboardProcess.Start(
            "trace", "--vfio-user", $"--listen={_folder["t"]}", $"--connect={_folder["s"]}", "--json", "--once");
        await trace.WaitForFileAsync(_folder["t"]);
        using (WireClient client = new(
            await UnixSocket.ConnectAsync(_folder["t"], TestContext.Current.CancellationToken)))
        {
            await SayEverythingAsync(client);
        }

        Outcome outcome = await trace.EndAsync();
        Assert.Equal((0, string.Empty), (outcome.ExitCode, outcome.Errors));
        JsonElement[] messages = [.. outcome.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonDocument.Parse(line).RootElement)
            .Where(line => line.TryGetProperty("command", out _))];
        foreach (CommandRow row in CommandTable.Rows)
        {
            JsonElement[] own = [.. messages.Where(message => message.GetProperty("name").GetString() == row.Name)];
            Assert.Contains(own, message => !message.GetProperty("reply").GetBoolean());
            Assert.Contains(own, message => message.GetProperty("reply").GetBoolean());
            Assert.All(own, message => Assert.False(message.TryGetProperty("problem", out _), message.ToString()));
            Assert.All(own, message => Assert.Equal(
                message.GetProperty("size").GetInt32() > MessageHeader.Bytes,
                message.GetProperty("fields").EnumerateObject().Any()));
        }

        JsonElement state = messages.Last(message => message.GetProperty("name").GetString() == "DEVICE_FEATURE");
        Assert.Equal((int)MigrationState.Running, state.GetProperty("fields").GetProperty("state").GetInt32());
        JsonElement multi = messages.First(message => message.GetProperty("name").GetString() == "REGION_WRITE_MULTI");
        Assert.Equal(0x44, Convert.ToInt32(
            multi.GetProperty("fields").GetProperty("writes")[0].GetProperty("offset").GetString(), 16));
    }

    private static async Task SayEverythingAsync(WireClient client)
    {
        await client.NegotiateAsync();
        await client.MapAsync(0, 0x1000, null);
        await client.CallAsync(
            VfioUserCommand.DeviceGetInfo, WireClient.Bytes(new DeviceInfoPayload(16, 0, 0, 0)));
        await client.CallAsync(
            VfioUserCommand.DeviceGetRegionInfo, WireClient.Bytes(new RegionInfoPayload(80, 0, 2, 0, 0, 0)));
        await client.CallAsync(
            VfioUserCommand.DeviceGetRegionIoFds, WireClient.Bytes(new RegionIoFdsPayload(256, 0, 0, 0)));
        await client.CallAsync(
            VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, 2, 0)));
        await client.CallAsync(VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x21, 2, 0, 1));
        await client.WriteRegionAsync(0, 0x40, 0UL);
        await client.WriteRegionAsync(0, 0x48, 16u);
        await TransferAsync(client, 0x101, answersData: true);
        await TransferAsync(client, 0x102, answersData: false);
        await client.ReadRegionAsync(7, 0, 4);
        await client.CallAsync(
            VfioUserCommand.RegionWriteMulti,
            [.. WireClient.Bytes(1UL), .. WireClient.Bytes(new WriteMultiEntry(0x44, 0, 4, 0))]);
        await SetStateAsync(client, MigrationState.Stop);
        await SetStateAsync(client, MigrationState.StopCopy);
        WireMessage data = await client.CallAsync(
            VfioUserCommand.MigDataRead, WireClient.Bytes(new MigrationDataPayload(1 << 16, (1 << 16) - 8)));
        byte[] stream = data.Payload[MigrationDataPayload.Bytes..];
        await SetStateAsync(client, MigrationState.Resuming);
        await client.CallAsync(
            VfioUserCommand.MigDataWrite,
            [.. WireClient.Bytes(new MigrationDataPayload(8, (uint)stream.Length)), .. stream]);
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        await client.CallAsync(
            VfioUserCommand.DmaUnmap, WireClient.Bytes(new DmaUnmapPayload(24, DmaUnmapFlags.All, 0, 0)));
        await SetStateAsync(client, MigrationState.Running);
    }

    private static async Task TransferAsync(WireClient client, uint control, bool answersData)
    {
        ushort start = await client.SendAsync(
            VfioUserCommand.RegionWrite, WireClient.Write(0, 0x4c, WireClient.Bytes(control)));
        WireMessage asked = await client.ReceiveAsync();
        byte[] payload = answersData ? [.. asked.Payload, .. new byte[16]] : asked.Payload[..16];
        MessageHeader header = new(
            asked.Header.Id, asked.Header.Command, (uint)(MessageHeader.Bytes + payload.Length), MessageFlags.Reply, 0);
        await client.SendRawAsync([.. WireClient.Bytes(header), .. payload]);
        await client.ReplyAsync(VfioUserCommand.RegionWrite, start);
    }

    private static async Task SetStateAsync(WireClient client, MigrationState state)
    {
        byte[] payload = new byte[16];
        MemoryMarshal.Write(
            payload,
            new FeaturePayload(16, FeaturePayload.Set | (uint)DeviceFeature.MigrationDeviceState));
        MemoryMarshal.Write(payload.AsSpan(8), new DeviceStatePayload((uint)state, 0));
        await client.CallAsync(VfioUserCommand.DeviceFeature, payload);
    }
}

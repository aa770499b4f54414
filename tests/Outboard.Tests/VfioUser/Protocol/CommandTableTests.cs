// The table is complete: a row for every command, an arm for every row, a file of tests for each.
using Outboard.Tests.Tidy;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Protocol;

public sealed class CommandTableTests : ServerTest
{
    public static TheoryData<VfioUserCommand> All => [.. CommandTable.Rows.Select(row => row.Command)];

    [Fact]
    public void Every_command_has_exactly_one_row()
    {
        Assert.Equal(Enum.GetValues<VfioUserCommand>().Order(), CommandTable.Rows.Select(row => row.Command).Order());
        Assert.All(CommandTable.Rows, row => Assert.Same(row, CommandTable.Find(row.Command)));
    }

    [Fact]
    public void Names_are_the_specifications_spelling_of_the_members() =>
        Assert.All(CommandTable.Rows, row => Assert.Equal($"{row.Command}", string.Concat(
            row.Name.Split('_').Select(word => word[..1] + word[1..].ToLowerInvariant()))));

    [Theory]
    [InlineData(0)]
    [InlineData(14)]
    [InlineData(19)]
    [InlineData(999)]
    [InlineData(ushort.MaxValue)]
    public async Task Unknown_commands_are_refused(ushort number)
    {
        Assert.Null(CommandTable.Find((VfioUserCommand)number));
        using WireClient client = await ConnectNegotiatedAsync();
        await client.RefusedAsync(WireClient.Inval, (VfioUserCommand)number, [1, 2, 3]);
        await client.ExpectServedAsync();
    }

    [Fact]
    public void No_allowed_payload_is_larger_than_the_framer_takes() => Assert.All(
        CommandTable.Rows,
        row => Assert.InRange(row.MaxBytes, row.MinBytes, MessageHeader.MaxPayloadBytes));

    /// <summary>Zero bytes of allowed size: carried out or refused, but never met without an arm.</summary>
    [Theory]
    [MemberData(nameof(All))]
    public async Task Every_command_has_an_arm(VfioUserCommand command)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        ushort id = await client.SendAsync(command, new byte[CommandTable.Find(command)!.MinBytes]);
        Assert.Equal(id, (await client.ReceiveAsync()).Header.Id);
        await client.ExpectServedAsync();
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Every_command_has_a_file_of_tests(VfioUserCommand command) => Assert.Contains(
        Repository.Files, file => file.Path == $"tests/Outboard.Tests/VfioUser/Commands/{command}Tests.cs");
}

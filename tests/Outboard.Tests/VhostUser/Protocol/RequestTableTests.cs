// The table is complete: a row for every request, an arm and a file of tests for every row.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Protocol;

public sealed class RequestTableTests : BackendTest
{
    public static TheoryData<FrontendRequest> All =>
        [.. RequestTable.FrontendRows.Select(row => (FrontendRequest)row.Id)];

    [Fact]
    public void Every_frontend_request_has_exactly_one_row()
    {
        uint[] members = [.. Enum.GetValues<FrontendRequest>().Select(request => (uint)request)];
        uint[] rows = [.. RequestTable.FrontendRows.Select(row => row.Id)];
        Assert.Equal(members.Order(), rows.Order());
        Assert.All(rows, id => Assert.Same(RequestTable.Frontend(id), RequestTable.Frontend((FrontendRequest)id)));
    }

    [Fact]
    public void Every_backend_request_has_exactly_one_row()
    {
        uint[] members = [.. Enum.GetValues<BackendRequest>().Select(request => (uint)request)];
        uint[] rows = [.. RequestTable.BackendRows.Select(row => row.Id)];
        Assert.Equal(members.Order(), rows.Order());
    }

    [Fact]
    public void Names_are_the_specifications_spelling_of_the_members()
    {
        Assert.All(RequestTable.FrontendRows, row => Assert.Equal($"{(FrontendRequest)row.Id}", Member(row.Name)));
        Assert.All(
            RequestTable.BackendRows,
            row => Assert.Equal($"{(BackendRequest)row.Id}", Member(row.Name["BACKEND_".Length..])));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(46)]
    [InlineData(1000)]
    [InlineData(uint.MaxValue)]
    public void Unknown_numbers_have_no_row(uint id)
    {
        Assert.Null(RequestTable.Frontend(id));
        Assert.Null(RequestTable.Backend(id));
    }

    [Fact]
    public void No_allowed_payload_is_larger_than_the_framer_takes()
    {
        RequestRow[] rows = [.. RequestTable.FrontendRows, .. RequestTable.BackendRows];
        Assert.All(rows, row => Assert.False(row.Size.Allows(MessageHeader.MaxPayloadBytes + 1), row.Name));
        Assert.All(rows, row => Assert.False(row.Size.Allows(uint.MaxValue), row.Name));
    }

    [Theory]
    [InlineData(7, false)]
    [InlineData(8, true)]
    [InlineData(39, false)]
    [InlineData(40, true)]
    [InlineData(41, false)]
    [InlineData(72, true)]
    [InlineData(8 + (8 * 32), true)]
    [InlineData(8 + (9 * 32), false)]
    public void Sizes_of_a_memory_table(uint bytes, bool allowed) =>
        Assert.Equal(allowed, RequestTable.Frontend(FrontendRequest.SetMemTable).Size.Allows(bytes));

    /// <summary>A message of allowed size: carried out or refused, but never met without an arm.</summary>
    [Theory]
    [MemberData(nameof(All))]
    public async Task Every_built_request_has_an_arm(FrontendRequest request)
    {
        RequestRow row = RequestTable.Frontend(request);
        PayloadSize size = row.Size;
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        await peer.SendAsync(request, WirePeer.NeedReply, new byte[size.Fixed + (size.Element * size.Min)]);
        try
        {
            await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
            while ((await peer.ReceiveAsync()).Request != (uint)FrontendRequest.GetFeatures)
            {
                // The answer to the request, if it has one.
            }
        }
        catch (Exception) when (row.HasOwnReply)
        {
            // Refused by the end of the connection.
        }

        Assert.Empty(Rig.Log.Critical);
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Every_built_request_has_a_file_of_tests(FrontendRequest request)
    {
        string folder = Path.Combine(RepositoryRoot(), "tests", "Outboard.Tests", "VhostUser", "Requests");
        Assert.True(File.Exists(Path.Combine(folder, $"{request}Tests.cs")), $"{request} has no tests");
    }

    private static string Member(string name) => string.Concat(
        name.Split('_').Select(word => word[..1] + word[1..].ToLowerInvariant()));

    private static string RepositoryRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Outboard.slnx")))
            {
                return folder.FullName;
            }
        }

        throw new DirectoryNotFoundException("no Outboard.slnx above the tests");
    }
}

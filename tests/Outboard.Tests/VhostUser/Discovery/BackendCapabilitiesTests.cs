// What --print-capabilities prints, as text.
using System.Text;
using System.Text.Json;
using Outboard.VhostUser.Discovery;
using Xunit;

namespace Outboard.Tests.VhostUser.Discovery;

public sealed class BackendCapabilitiesTests
{
    [Fact]
    public void The_block_back_end_tells_type_and_features() =>
        Assert.Equal("""{"type":"block","features":["read-only","blk-file"]}""", BackendCapabilities.Block.ToJson());

    [Fact]
    public void What_is_printed_is_read_back()
    {
        byte[] printed = Encoding.UTF8.GetBytes(BackendCapabilities.Block.ToJson());
        BackendCapabilities read = BackendCapabilities.Parse(printed);
        Assert.Equal(BackendCapabilities.Block.Type, read.Type);
        Assert.Equal(BackendCapabilities.Block.Features, read.Features);
    }

    [Theory]
    [InlineData("""{"type":"scsi"}""")]
    [InlineData("""{"type":"scsi","features":[],"more":1}""")]
    public void Other_programs_print_less_and_more(string text)
    {
        BackendCapabilities read = BackendCapabilities.Parse(Encoding.UTF8.GetBytes(text));
        Assert.Equal("scsi", read.Type);
        Assert.Empty(read.Features);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{}")]
    [InlineData("null")]
    [InlineData("""{"features":[]}""")]
    public void What_has_no_type_is_refused(string text) =>
        Assert.Throws<JsonException>(() => BackendCapabilities.Parse(Encoding.UTF8.GetBytes(text)));
}

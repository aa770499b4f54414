// The fields of messages fit the sizes that the request table allows: one row for each request, of either direction.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Protocol;

public sealed class PayloadTableTests
{
    private static IEnumerable<RequestRow> Requests => RequestTable.FrontendRows.Concat(RequestTable.BackendRows);

    [Fact]
    public void Every_request_has_its_fields() =>
        Assert.Equal(Requests.Select(row => row.Name).Order(), PayloadTable.Rows.Select(row => row.Name).Order());

    [Fact]
    public void Fields_fill_an_allowed_payload() => Assert.All(Requests, row =>
    {
        FieldLayout layout = PayloadTable.Find(row.Name)!.Request;
        int bytes = layout.SizeBytes + (layout.ElementBytes * row.Size.Min);
        Assert.True(row.Size.Allows((uint)bytes), $"{row.Name}: {bytes} bytes of fields, {row.Size} are allowed");
    });

    [Fact]
    public void Replies_have_the_fields_of_their_kind() => Assert.All(Requests, row =>
    {
        PayloadRow fields = PayloadTable.Find(row.Name)!;
        int expected = row.Reply switch
        {
            ReplyKind.SameLayout => fields.Request.SizeBytes,
            ReplyKind.Descriptor or ReplyKind.OwnLayout => fields.Reply.SizeBytes,
            _ => 8,
        };
        Assert.Equal(expected, fields.Reply.SizeBytes);
    });

    [Fact]
    public void A_memory_table_is_shown_region_by_region()
    {
        byte[] payload =
        [
            .. WirePeer.Bytes(new MemoryTablePayload(2, 0)),
            .. WirePeer.Bytes(new MemoryRegionPayload(0, 0x1000, 0x7f00, 0)),
            .. WirePeer.Bytes(new MemoryRegionPayload(0x10000, 0x2000, 0x8f00, 0x1000)),
        ];
        IReadOnlyList<FieldValue> fields = PayloadTable.Find("SET_MEM_TABLE")!.Request.Decode(payload);
        Assert.Equal(2UL, fields[0].Number);
        Assert.Equal(
            ["0x10000", "0x2000", "0x8f00", "0x1000"], fields[1].Elements![1].Select(field => field.Text));
    }

    [Fact]
    public void Protocol_features_have_their_names()
    {
        Assert.Equal(["MQ", "CONFIG", "40"], PayloadTable.NamesOf((ProtocolFeatures)(1UL | (1UL << 9) | (1UL << 40))));
        Assert.All(
            Enum.GetValues<ProtocolFeatures>().Where(feature => feature != ProtocolFeatures.None),
            feature => Assert.DoesNotMatch("^[0-9]+$", Assert.Single(PayloadTable.NamesOf(feature))));
    }

    [Fact]
    public void Status_bits_have_their_names()
    {
        FieldValue status = PayloadTable.Find("SET_STATUS")!.Request.Decode(WirePeer.Bytes(0x4FUL))[0];
        Assert.Equal(["ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK", "DEVICE_NEEDS_RESET"], status.Names);
    }
}

// What is in each vfio-user command and in its reply, field by field, for people: the layouts of vfio-user
// "Protocol Specification" as data. One row for each command of the table.
using System.Buffers.Binary;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Tracing;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Trace;

/// <summary>The fields of all commands.</summary>
internal static class CommandFields
{
    private const string Window = "argsz u32, flags map32, offset x64, address x64, size x64";
    private const string Unmap = "argsz u32, flags unmap32, address x64, size x64";
    private const string Region = "argsz u32, flags region32, index u32, cap_offset u32, size x64, offset x64";
    private const string Access = "offset x64, region u32, count u32";
    private const string Dma = "address x64, count u64";
    private const string Feature = "argsz u32, feature b16, get b1, set b1, probe b1, - b13";
    private const string Data = ", data bytes";

    /// <summary>What libvfio-user adds to an unmap for which it reports pages.</summary>
    private const string Bitmap = ", bitmap_page_size u64, bitmap_size u64, bitmap bytes";

    private static readonly (string Word, BitNames Names)[] s_words =
    [
        ("map", Names("READ WRITE MMAP FILE_IO")),
        ("unmap", Names("GET_DIRTY_BITMAP ALL")),
        ("device", Names("RESET PCI")),
        ("region", Names("READ WRITE MMAP CAPS")),
        ("irq", Names("EVENTFD MASKABLE AUTOMASKED NORESIZE")),
        ("setirqs", Names("NONE BOOL EVENTFD MASK UNMASK TRIGGER")),
    ];

    private static readonly FieldLayout s_area = Of("offset x64, size x64");
    private static readonly FieldLayout s_areas = Of(
        $"{Region}, cap_id u16, cap_version u16, cap_next u32, nr_areas u32, - u32").FollowedBy("areas", s_area);

    private static readonly FieldLayout s_write = Of($"{Access}, data bytes8");
    private static readonly FieldLayout s_descriptors = Of("argsz u32, flags x32, index u32, count u32");
    private static readonly FieldLayout s_entry = Of(
        "offset x64, size u64, fd_index u32, type u32, flags x32, - u32, datamatch x64");

    private static readonly FieldLayout s_shadowEntry = Of(
        "offset x64, size u64, fd_index u32, type u32, flags x32, shadow_fd_index u32, shadow_offset x64, "
        + "datamatch x64");

    private static readonly Dictionary<VfioUserCommand, (FieldLayout Command, FieldLayout Reply)> s_rows = new()
    {
        [VfioUserCommand.Version] = Both("major u16, minor u16, capabilities text"),
        [VfioUserCommand.DmaMap] = (Of(Window), FieldLayout.Empty),
        [VfioUserCommand.DmaUnmap] = Both(Unmap + Bitmap),
        [VfioUserCommand.DeviceGetInfo] = Both("argsz u32, flags device32, num_regions u32, num_irqs u32"),
        [VfioUserCommand.DeviceGetRegionInfo] = (Of(Region), s_areas),
        [VfioUserCommand.DeviceGetRegionIoFds] = (s_descriptors, s_descriptors),
        [VfioUserCommand.DeviceGetIrqInfo] = Both("argsz u32, flags irq32, index u32, count u32"),
        [VfioUserCommand.DeviceSetIrqs] = (
            Of($"argsz u32, flags setirqs32, index u32, start u32, count u32{Data}"), FieldLayout.Empty),
        [VfioUserCommand.RegionRead] = (Of(Access), Of(Access + Data)),
        [VfioUserCommand.RegionWrite] = (Of(Access + Data), Of(Access)),
        [VfioUserCommand.DmaRead] = (Of(Dma), Of(Dma + Data)),
        [VfioUserCommand.DmaWrite] = (Of(Dma + Data), Of(Dma)),
        [VfioUserCommand.DeviceReset] = (FieldLayout.Empty, FieldLayout.Empty),
        [VfioUserCommand.RegionWriteMulti] = (Of("wr_cnt u64").FollowedBy("writes", s_write), Of("wr_cnt u64")),
        [VfioUserCommand.DeviceFeature] = Both(Feature + Data),
        [VfioUserCommand.MigDataRead] = (Of("argsz u32, size u32"), Of($"argsz u32, size u32{Data}")),
        [VfioUserCommand.MigDataWrite] = (Of($"argsz u32, size u32{Data}"), FieldLayout.Empty),
    };

    private static readonly Dictionary<DeviceFeature, FieldLayout> s_features = new()
    {
        [DeviceFeature.Migration] = Of($"{Feature}, flags x64"),
        [DeviceFeature.MigrationDeviceState] = Of($"{Feature}, state u32, data_fd u32"),
        [DeviceFeature.DmaLoggingStart] =
            Of($"{Feature}, page_size u64, num_ranges u32, - u32").FollowedBy("ranges", Of("iova x64, length x64")),
        [DeviceFeature.DmaLoggingStop] = Of(Feature),
        [DeviceFeature.DmaLoggingReport] = Of($"{Feature}, iova x64, length x64, page_size u64, bitmap bytes"),
    };

    /// <summary>The fields of a message; none for a failure, which is a header only.</summary>
    public static IReadOnlyList<FieldValue> Of(TracedMessageEntry message)
    {
        bool isFailure = (message.Header.Flags & MessageFlags.Error) != 0;
        return isFailure || message.Row is not { } row || !s_rows.ContainsKey(row.Command)
            ? []
            : LayoutOf(row.Command, message.Header.IsReply, message.Payload.Span).Decode(message.Payload.Span);
    }

    private static FieldLayout LayoutOf(VfioUserCommand command, bool isReply, ReadOnlySpan<byte> payload)
    {
        FieldLayout plain = isReply ? s_rows[command].Reply : s_rows[command].Command;
        return command switch
        {
            VfioUserCommand.DeviceFeature when payload.Length >= FeaturePayload.Bytes =>
                s_features.GetValueOrDefault(
                    (DeviceFeature)BinaryPrimitives.ReadUInt16LittleEndian(payload[4..]), plain),
            VfioUserCommand.DeviceGetRegionIoFds when isReply && payload.Length > RegionIoFdsPayload.Bytes =>
                s_descriptors.FollowedBy("entries", EntryOf(payload)),
            VfioUserCommand.DmaUnmap when payload.Length == DmaUnmapPayload.Bytes => Of(Unmap),
            _ => plain,
        };
    }

    /// <summary>An entry has the size that the reply says.</summary>
    private static FieldLayout EntryOf(ReadOnlySpan<byte> payload)
    {
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(payload[12..]);
        return count > 0 && (payload.Length - RegionIoFdsPayload.Bytes) / count == s_shadowEntry.SizeBytes
            ? s_shadowEntry
            : s_entry;
    }

    private static (FieldLayout Command, FieldLayout Reply) Both(string text) => (Of(text), Of(text));

    private static FieldLayout Of(string text) => FieldLayout.Parse(text, s_words);

    private static BitNames Names(string words)
    {
        string[] names = words.Split(' ');
        return (value, _) => names.Where((_, bit) => (value >> bit & 1) != 0);
    }
}

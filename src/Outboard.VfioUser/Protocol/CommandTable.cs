// The protocol as a table: one row for each command. Policy (who sends it, size, descriptors, gate) is checked from
// here before a command is carried out; the tracer, the coverage page and the tests read the same rows.
namespace Outboard.VfioUser.Protocol;

/// <summary>Who sends a command.</summary>
public enum CommandSender
{
    /// <summary>The client, to the server.</summary>
    Client,

    /// <summary>The server, to the client.</summary>
    Server,
}

/// <summary>What a successful command is answered with.</summary>
public enum ReplyKind
{
    /// <summary>The header only.</summary>
    Empty,

    /// <summary>The command's head again, filled in.</summary>
    SameHead,

    /// <summary>The head, then as much more as the client has room for (argsz).</summary>
    Argsz,

    /// <summary>The head, then the data asked for.</summary>
    Data,
}

/// <summary>What must have been negotiated.</summary>
public enum CommandGate
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>The capability write_multiple.</summary>
    WriteMultiple,
}

/// <summary>One command.</summary>
/// <param name="Command">The command.</param>
/// <param name="Name">Its name as the specification spells it, without the prefix.</param>
/// <param name="Sender">Who sends it.</param>
/// <param name="MinBytes">Smallest payload.</param>
/// <param name="MaxBytes">Largest payload.</param>
/// <param name="MaxDescriptors">Most descriptors that may come with it.</param>
/// <param name="Reply">How it is answered.</param>
/// <param name="Gate">What must have been negotiated.</param>
public sealed record CommandRow(
    VfioUserCommand Command, string Name, CommandSender Sender, int MinBytes, int MaxBytes, int MaxDescriptors,
    ReplyKind Reply, CommandGate Gate);

/// <summary>All commands.</summary>
public static class CommandTable
{
    /// <summary>A command with argsz may carry the room for its reply along; the largest such reply has this size.</summary>
    private const int Room = MessageHeader.MaxPayloadBytes;

    private const int MaxVersion = VersionPayload.Bytes + VersionCapabilities.MaxJsonBytes;
    private const int MaxData = VersionCapabilities.MaxTransferBytes;
    private const int MaxMulti = WriteMultiPayload.Bytes + (WriteMultiPayload.MaxWrites * WriteMultiEntry.Bytes);
    private const int Fds = VersionCapabilities.MaxMessageDescriptors;

    private static readonly CommandRow?[] s_rows = Index(
    [
        Row(VfioUserCommand.Version, "VERSION", VersionPayload.Bytes, MaxVersion, 0, ReplyKind.SameHead),
        Row(VfioUserCommand.DmaMap, "DMA_MAP", DmaMapPayload.Bytes, DmaMapPayload.Bytes, 1, ReplyKind.Empty),
        Row(VfioUserCommand.DmaUnmap, "DMA_UNMAP", DmaUnmapPayload.Bytes, Room, 0, ReplyKind.SameHead),
        Row(VfioUserCommand.DeviceGetInfo, "DEVICE_GET_INFO", DeviceInfoPayload.Bytes, Room, 0, ReplyKind.Argsz),
        Row(VfioUserCommand.DeviceGetRegionInfo, "DEVICE_GET_REGION_INFO", RegionInfoPayload.Bytes, Room, 0, ReplyKind.Argsz),
        Row(VfioUserCommand.DeviceGetRegionIoFds, "DEVICE_GET_REGION_IO_FDS", RegionIoFdsPayload.Bytes, Room, 0, ReplyKind.Argsz),
        Row(VfioUserCommand.DeviceGetIrqInfo, "DEVICE_GET_IRQ_INFO", IrqInfoPayload.Bytes, Room, 0, ReplyKind.Argsz),
        Row(VfioUserCommand.DeviceSetIrqs, "DEVICE_SET_IRQS", SetIrqsPayload.Bytes, Room, Fds, ReplyKind.Empty),
        Row(VfioUserCommand.RegionRead, "REGION_READ", RegionAccessPayload.Bytes, RegionAccessPayload.Bytes, 0, ReplyKind.Data),
        Row(VfioUserCommand.RegionWrite, "REGION_WRITE", RegionAccessPayload.Bytes, RegionAccessPayload.Bytes + MaxData, 0, ReplyKind.SameHead),
        Row(VfioUserCommand.DmaRead, "DMA_READ", DmaAccessPayload.Bytes, DmaAccessPayload.Bytes, 0, ReplyKind.Data, CommandSender.Server),
        Row(VfioUserCommand.DmaWrite, "DMA_WRITE", DmaAccessPayload.Bytes, DmaAccessPayload.Bytes + MaxData, 0, ReplyKind.SameHead, CommandSender.Server),
        Row(VfioUserCommand.DeviceReset, "DEVICE_RESET", 0, 0, 0, ReplyKind.Empty),
        Row(VfioUserCommand.RegionWriteMulti, "REGION_WRITE_MULTI", WriteMultiPayload.Bytes, MaxMulti, 0, ReplyKind.SameHead, gate: CommandGate.WriteMultiple),
        Row(VfioUserCommand.DeviceFeature, "DEVICE_FEATURE", FeaturePayload.Bytes, Room, 0, ReplyKind.Argsz),
        Row(VfioUserCommand.MigDataRead, "MIG_DATA_READ", MigrationDataPayload.Bytes, MigrationDataPayload.Bytes, 0, ReplyKind.Data),
        Row(VfioUserCommand.MigDataWrite, "MIG_DATA_WRITE", MigrationDataPayload.Bytes, MigrationDataPayload.Bytes + MaxData, 0, ReplyKind.Empty),
    ]);

    /// <summary>All commands, by number.</summary>
    public static IEnumerable<CommandRow> Rows => s_rows.OfType<CommandRow>();

    /// <summary>The row of a command; null when the number is unknown.</summary>
    public static CommandRow? Find(VfioUserCommand command) =>
        (int)command < s_rows.Length ? s_rows[(int)command] : null;

    private static CommandRow Row(
        VfioUserCommand command, string name, int minBytes, int maxBytes, int descriptors, ReplyKind reply,
        CommandSender sender = CommandSender.Client, CommandGate gate = CommandGate.None) =>
        new(command, name, sender, minBytes, maxBytes, descriptors, reply, gate);

    private static CommandRow?[] Index(CommandRow[] rows)
    {
        CommandRow?[] index = new CommandRow?[rows.Max(row => (int)row.Command) + 1];
        foreach (CommandRow row in rows)
        {
            index[(int)row.Command] = row;
        }

        return index;
    }
}

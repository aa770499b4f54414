// The commands of vfio-user on the coverage page.
using System.Text;
using Outboard.VfioUser.Protocol;

namespace Outboard.Tests.Coverage;

internal sealed partial class SpecCoverage
{
    private const string VfioUserServer = "src/Outboard.VfioUser/Server";

    /// <summary>Commands seen on the wire from QEMU's vfio-user-pci, and answered by it.</summary>
    private static readonly VfioUserCommand[] s_qemuVfioUser =
    [
        VfioUserCommand.Version, VfioUserCommand.DmaMap, VfioUserCommand.DmaUnmap, VfioUserCommand.DeviceGetInfo,
        VfioUserCommand.DeviceGetRegionInfo, VfioUserCommand.DeviceGetIrqInfo, VfioUserCommand.DeviceSetIrqs,
        VfioUserCommand.RegionRead, VfioUserCommand.RegionWrite, VfioUserCommand.DmaRead, VfioUserCommand.DmaWrite,
        VfioUserCommand.DeviceReset,
    ];

    private void AppendCommands(StringBuilder page)
    {
        page.Append("\n## Commands of vfio-user\n\n");
        AppendHeader(page, "command", "gate");
        foreach (CommandRow row in CommandTable.Rows)
        {
            string function = row.Command switch
            {
                VfioUserCommand.DmaRead => "ReadAsync",
                VfioUserCommand.DmaWrite => "WriteAsync",
                _ => row.Command.ToString(),
            };
            string code = row.Sender == CommandSender.Server
                ? Find($"{VfioUserServer}/ClientRequests.cs", function)
                : Find(VfioUserServer, function);
            string gate = row.Gate == CommandGate.None ? None : row.Gate.ToString();
            string test = Existing($"tests/Outboard.Tests/VfioUser/Commands/{row.Command}Tests.cs");
            AppendRow(
                page, (uint)row.Command, row.Name, isBuilt: true, gate, code, test,
                s_qemuVfioUser.Contains(row.Command) ? Qemu : None);
        }
    }
}

// ApplianceMigrationTests.cs - a tenant moves between two stock QEMU processes while its disk is served by our program
// inside an appliance: at its new place by a second program, through a second device of the same appliance. What the
// program writes into the tenant's memory meanwhile is marked in the log, which lies in the device's second region.
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.Migration;
using Xunit;

namespace Outboard.InteropTests.Appliance;

public sealed partial class ApplianceMigrationTests
{
    private const int Blocks = 250;

    [GeneratedRegex(@"^PROGRESS \d+$", RegexOptions.Multiline)]
    private static partial Regex Progress { get; }

    /// <summary>There and back again: each program serves twice, or once more after it was left.</summary>
    [Fact]
    public async Task A_tenant_under_load_goes_there_and_back()
    {
        using TempFolder folder = new();
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync(new ApplianceOptions
        {
            Programs = [ApplianceMachine.DiskProgram, $"{ApplianceMachine.DiskProgram} --incoming"],
        });
        GuestVm tenant = await GuestVm.StartAsync(Tenant(appliance, 0));
        try
        {
            await tenant.WaitForAsync(Progress);
            for (int journey = 1; journey <= 2; journey++)
            {
                string socket = folder.Combine($"migration-{journey}.sock");
                GuestVm next = await MigratingGuest.StartIncomingAsync(Tenant(appliance, journey % 2), socket);
                try
                {
                    await MigratingGuest.MoveAsync(tenant, socket);
                }
                finally
                {
                    await tenant.DisposeAsync();
                    tenant = next;
                }

                await tenant.WaitForAsync(Progress);
            }

            appliance.Require(await tenant.FinishAsync());
        }
        catch (LabException failure)
        {
            throw appliance.Explain(failure);
        }
        finally
        {
            await tenant.DisposeAsync();
        }

        await appliance.EndAsync();
    }

    private static GuestOptions Tenant(ApplianceMachine appliance, int program) => appliance.Tenant(1, program) with
    {
        Script = GuestOptions.ReadScript("migrate-block.sh"),
        Variables = new Dictionary<string, string> { ["BLOCKS"] = $"{Blocks}", ["PACKED"] = "0" },
        OffersQmp = true,
        MemoryMegabytes = 256,

        // Pages that are read into from the disk are not written by the machine before.
        KernelArguments = "init_on_alloc=0",
    };
}

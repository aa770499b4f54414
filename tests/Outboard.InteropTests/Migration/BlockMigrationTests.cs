// BlockMigrationTests.cs - a guest moves between two stock QEMU processes while it writes to our disk and reads back.
// Both sides serve the same image: the one that waits was started with --incoming and locks it when the guest arrives.
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Block;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Migration;

public sealed partial class BlockMigrationTests
{
    private const int BlockBytes = 16 << 10;
    private const long DiskLength = 32 << 20;

    /// <summary>So slow that a migration does not end before the test wants it to.</summary>
    private const long Crawl = 1 << 20;

    [GeneratedRegex(@"^PROGRESS \d+$", RegexOptions.Multiline)]
    private static partial Regex Progress { get; }

    [GeneratedRegex(@"^SUM (?<sum>[0-9a-f]{64})$", RegexOptions.Multiline)]
    private static partial Regex Sum { get; }

    /// <summary>There and back again: four journeys, each back-end serving twice.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_guest_under_load_goes_back_and_forth(bool isPacked)
    {
        const int journeys = 4;
        using TempFolder folder = new();
        Side[] sides = await Side.StartBothAsync(folder);
        GuestOptions options = OptionsFor(blocks: 900, isPacked);
        GuestVm guest = await GuestVm.StartAsync(options with { DeviceArguments = sides[0].Arguments(isPacked) });
        try
        {
            await guest.WaitForAsync(Progress);
            for (int journey = 1; journey <= journeys; journey++)
            {
                string socket = folder.Combine($"migration-{journey}.sock");
                GuestOptions there = options with { DeviceArguments = sides[journey % 2].Arguments(isPacked) };
                GuestVm next = await MigratingGuest.StartIncomingAsync(there, socket);
                try
                {
                    await MigratingGuest.MoveAsync(guest, socket);
                }
                finally
                {
                    await guest.DisposeAsync();
                    guest = next;
                }

                await guest.WaitForAsync(Progress);
            }

            await FinishAsync(guest, folder, blocks: 900);
        }
        finally
        {
            await guest.DisposeAsync();
            await Side.EndAsync(sides);
        }
    }

    /// <summary>Needs userfaultfd for faults of the kernel: run as root, or permit it.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_guest_under_load_runs_before_its_memory_has_come(bool isPacked)
    {
        using TempFolder folder = new();
        Side[] sides = await Side.StartBothAsync(folder);
        GuestOptions options = OptionsFor(blocks: 500, isPacked);
        GuestVm guest = await GuestVm.StartAsync(options with { DeviceArguments = sides[0].Arguments(isPacked) });
        try
        {
            await guest.WaitForAsync(Progress);
            GuestOptions there = options with { DeviceArguments = sides[1].Arguments(isPacked) };
            GuestVm next = await MigratingGuest.MoveByPostcopyAsync(guest, there, folder.Combine("migration.sock"));
            await guest.DisposeAsync();
            guest = next;
            await guest.WaitForAsync(Progress);
            await FinishAsync(guest, folder, blocks: 500);
        }
        finally
        {
            await guest.DisposeAsync();
            await Side.EndAsync(sides);
        }
    }

    [Fact]
    public async Task A_cancelled_migration_costs_nothing_and_the_next_one_succeeds()
    {
        using TempFolder folder = new();
        Side[] sides = await Side.StartBothAsync(folder);
        GuestOptions options = OptionsFor(blocks: 500, isPacked: false);
        GuestOptions here = options with { DeviceArguments = sides[0].Arguments(isPacked: false) };
        GuestVm guest = await GuestVm.StartAsync(here);
        try
        {
            await guest.WaitForAsync(Progress);
            GuestOptions there = options with { DeviceArguments = sides[1].Arguments(isPacked: false) };
            string first = folder.Combine("first.sock");
            await using (GuestVm nobody = await MigratingGuest.StartIncomingAsync(there, first))
            {
                await MigratingGuest.BeginAsync(guest, first, Crawl);
                await MigratingGuest.WaitForStatusAsync(guest, "active");
                int position = guest.Serial.Length;
                await guest.WaitForAsync(Progress, position);
                await guest.QmpAsync("migrate_cancel");
                await MigratingGuest.WaitForStatusAsync(guest, "cancelled");
            }

            await guest.WaitForAsync(Progress, guest.Serial.Length);
            string second = folder.Combine("second.sock");
            GuestVm next = await MigratingGuest.StartIncomingAsync(there, second);
            try
            {
                await MigratingGuest.MoveAsync(guest, second);
            }
            finally
            {
                await guest.DisposeAsync();
                guest = next;
            }

            await FinishAsync(guest, folder, blocks: 500);
        }
        finally
        {
            await guest.DisposeAsync();
            await Side.EndAsync(sides);
        }
    }

    private static GuestOptions OptionsFor(int blocks, bool isPacked) => new()
    {
        Script = GuestOptions.ReadScript("migrate-block.sh"),
        Variables = new Dictionary<string, string> { ["BLOCKS"] = $"{blocks}", ["PACKED"] = isPacked ? "1" : "0" },
        OffersQmp = true,
        MemoryMegabytes = 256,
        KernelArguments = "init_on_alloc=0",
    };

    /// <summary>The guest found no difference; nor is there one in the image.</summary>
    private static async Task FinishAsync(GuestVm guest, TempFolder folder, int blocks)
    {
        GuestOutcome outcome = (await guest.FinishAsync()).RequireSuccess();
        await using FileStream image = File.OpenRead(folder.Combine("disk.img"));
        byte[] content = new byte[blocks * BlockBytes];
        await image.ReadExactlyAsync(content, TestContext.Current.CancellationToken);
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(content)), Sum.Match(outcome.Serial).Groups["sum"].Value);
    }

    /// <summary>A back-end and the machine before it.</summary>
    private sealed class Side
    {
        private readonly OutboardBlockBackend _backend;

        private Side(OutboardBlockBackend backend) => _backend = backend;

        internal static async Task<Side[]> StartBothAsync(TempFolder folder)
        {
            BlockBackendOptions options = new()
            {
                SocketPath = folder.Combine("first-disk.sock"),
                ImagePath = folder.CreateImage("disk.img", DiskLength),
            };
            Side first = new(await OutboardBlockBackend.StartAsync(options));
            BlockBackendOptions second = options with
            {
                SocketPath = folder.Combine("second-disk.sock"),
                IsIncoming = true,
            };
            return [first, new(await OutboardBlockBackend.StartAsync(second))];
        }

        internal static async Task EndAsync(Side[] sides)
        {
            foreach (Side side in sides)
            {
                await side._backend.DisposeAsync();
            }
        }

        internal string[] Arguments(bool isPacked) =>
        [
            "-chardev", $"socket,id=disk,path={_backend.SocketPath}",
            "-device", $"vhost-user-blk-pci,chardev=disk{(isPacked ? ",packed=on" : "")}",
        ];
    }
}

// MemoryHotplugTests.cs - memory is plugged into and out of a running Linux guest that uses our disk.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Block;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Memory;

public sealed class MemoryHotplugTests
{
    [Fact]
    public async Task A_guest_uses_its_disk_through_memory_that_was_plugged_in()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = new()
        {
            SocketPath = folder.Combine("block.sock"),
            ImagePath = folder.CreateImage("disk.img", 64 << 20),
        };
        await using OutboardBlockBackend backend = await OutboardBlockBackend.StartAsync(options);
        await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("memory-hotplug.sh"),
            MemorySlots = ",slots=4,maxmem=2G",
            OffersQmp = true,
            DeviceArguments =
            [
                "-chardev", $"socket,id=disk,path={backend.SocketPath},reconnect-ms=500",
                "-device", "vhost-user-blk-pci,chardev=disk",
            ],
        });

        await guest.WaitForLineAsync("READY");
        await guest.QmpAsync("object-add", new JsonObject
        {
            ["qom-type"] = "memory-backend-memfd", ["id"] = "more", ["size"] = 256 << 20, ["share"] = true,
        });
        await guest.QmpAsync("device_add", new JsonObject
        {
            ["driver"] = "pc-dimm", ["id"] = "dimm", ["memdev"] = "more",
        });
        await guest.WaitForLineAsync("UNPLUG");
        await guest.QmpAsync("device_del", new JsonObject { ["id"] = "dimm" });

        GuestOutcome outcome = (await guest.FinishAsync()).RequireSuccess();
        Assert.DoesNotContain("BROKEN", outcome.Serial, StringComparison.Ordinal);
        Assert.Contains("unplugged: ok", outcome.Serial, StringComparison.Ordinal);
    }
}

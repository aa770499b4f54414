// IommuGuestTests.cs - a stock Linux guest puts our disk behind its IOMMU: QEMU asks, tells and withdraws translations
// while the guest maps every request's buffers anew.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public sealed class IommuGuestTests
{
    private const long DiskLength = 96 << 20;
    private const int SectorLength = 512;

    [Theory]
    [InlineData(false, "iommu.strict=0")]
    [InlineData(false, "iommu.strict=1")]
    [InlineData(true, "iommu.strict=1")]
    public async Task A_file_system_keeps_its_files_behind_an_iommu(bool packed, string kernelArgument)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = new()
        {
            SocketPath = folder.Combine("block.sock"),
            ImagePath = folder.CreateImage("disk.img", DiskLength),
            QueueCount = 2,
        };
        await using OutboardBlockBackend backend = await OutboardBlockBackend.StartAsync(options);
        string ring = packed ? ",packed=on" : "";

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = "[ -d /sys/class/iommu/dmar0 ] || exit 90\n"
                + "[ -e /sys/block/vda/device/../iommu_group ] || exit 91\n"
                + GuestOptions.ReadScript("block.sh"),
            Processors = 2,
            KernelArguments = $"intel_iommu=on {kernelArgument}",
            Machine = "q35,kernel-irqchip=split",
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = "2",
                ["SECTORS"] = $"{DiskLength / SectorLength}",
            },
            DeviceArguments =
            [
                "-device", "intel-iommu,intremap=on,device-iotlb=on",
                "-chardev", $"socket,id=disk,path={backend.SocketPath},reconnect-ms=500",
                "-device",
                $"vhost-user-blk-pci,chardev=disk,num-queues=2,disable-legacy=on,iommu_platform=on,ats=on{ring}",
            ],
        });

        outcome.RequireSuccess();
    }
}

// FirmwareBootTests.cs - firmware starts a machine from our disk over vfio-user: its own driver finds the device.
// SeaBIOS reads the first sector and runs it; that reads 15 more through the firmware and prints them. UEFI (OVMF)
// finds a program in a file system, loads and runs it.
using System.Security.Cryptography;
using System.Text;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class FirmwareBootTests
{
    private const int SectorLength = 512;
    private const int TextSectors = 15;

    /// <summary>What the device isa-debug-exit makes of the 0x10 that is written to it.</summary>
    private const int ExitStatus = 0x21;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_bootLimit = TimeSpan.FromMinutes(3);

    /// <summary>16-bit code, loaded at 0x7c00: reads by the firmware, prints to the serial port, ends the machine.
    /// </summary>
    private static readonly byte[] s_code =
    [
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // ax = ds = ss = 0, sp = 0x7c00
        0xbe, 0x32, 0x7c, 0xb4, 0x42, 0xcd, 0x13, //             int 0x13, ah = 0x42: read what is described at 0x7c32
        0xbe, 0x00, 0x7e, 0xfc, //                               si = 0x7e00
        0xac, 0x84, 0xc0, 0x74, 0x12, 0x88, 0xc4, //             next byte; 0 ends
        0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, //       until the serial port has room
        0xba, 0xf8, 0x03, 0x88, 0xe0, 0xee, 0xeb, 0xe9, //       print, again
        0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, //             end
        0x10, 0x00, TextSectors, 0x00, 0x00, 0x7e, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ];

    [Theory]
    [InlineData("q35")]
    [InlineData("pc")]
    public async Task A_machine_starts_from_our_disk(string machine)
    {
        using TempFolder folder = new();
        string image = folder.Combine("disk.img");
        string text = Convert.ToBase64String(RandomNumberGenerator.GetBytes(5000));
        await File.WriteAllBytesAsync(image, DiskOf(text), TestContext.Current.CancellationToken);
        string socket = folder.Combine("disk.sock");
        await RequireBootAsync("block", image, text, socket, machine, []);
    }

    [Theory]
    [InlineData("nvme")]
    [InlineData("block")]
    public async Task A_machine_with_UEFI_starts_from_our_disk(string kind)
    {
        await Peers.RequireAsync("uefi");
        using TempFolder folder = new();
        string image = folder.Combine("disk.img");
        string text = Convert.ToBase64String(RandomNumberGenerator.GetBytes(5000));
        await File.WriteAllBytesAsync(image, EfiDisk.Make(text), TestContext.Current.CancellationToken);
        await RequireBootAsync(
            kind, image, text, folder.Combine("disk.sock"), "q35", ["-bios", "/usr/share/ovmf/OVMF.fd"]);
    }

    private static async Task RequireBootAsync(
        string kind, string image, string text, string socket, string machine, string[] firmware)
    {
        await using PeerProcess disk = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, kind, $"--vfio-user-socket={socket}", $"--blk-file={image}");
        await disk.WaitForSocketAsync(socket, s_startLimit);
        await using PeerProcess qemu = await PeerProcess.StartPeerAsync(
            "qemu-system-x86_64",
            ["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-m", "256M", "-no-reboot",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-object", "memory-backend-memfd,id=memory,size=256M,share=on",
            "-machine", $"{machine},memory-backend=memory", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
            "-device",
            $$$"""
            {"driver":"vfio-user-pci","bootindex":0,"socket":{"type":"unix","path":"{{{socket}}}"}}
            """,
            .. firmware]);
        int status = await qemu.WaitForExitAsync(s_bootLimit);
        Assert.True(status == ExitStatus, qemu.Describe());
        Assert.Contains(text, qemu.Output.Text, StringComparison.Ordinal);
        await disk.TerminateAsync();
        Assert.Equal(0, disk.ExitCode);
        Assert.DoesNotContain("warning", disk.Errors.Text, StringComparison.Ordinal);
    }

    private static byte[] DiskOf(string text)
    {
        byte[] disk = new byte[1 << 20];
        s_code.CopyTo(disk, 0);
        disk[SectorLength - 2] = 0x55;
        disk[SectorLength - 1] = 0xaa;
        Assert.InRange(text.Length, 1, (TextSectors * SectorLength) - 1);
        Encoding.ASCII.GetBytes(text).CopyTo(disk, SectorLength);
        return disk;
    }
}

// EfiDisk.cs - a disk that UEFI firmware starts a machine from: a FAT16 file system over the whole disk, with one
// program at the place where firmware looks for one (\EFI\BOOT\BOOTX64.EFI). The program prints a text to the serial
// port and ends the machine. The text lies behind 2 MiB of other bytes, so that the firmware has to read all of them.
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Outboard.InteropTests.VfioUser;

internal static class EfiDisk
{
    private const int SectorLength = 512;
    private const int SectorCount = 32768;
    private const int ClusterLength = 4 * SectorLength;
    private const int TableSectors = 32;
    private const int RootEntries = 512;
    private const int TablesStart = SectorLength;
    private const int RootStart = TablesStart + (2 * TableSectors * SectorLength);
    private const int DataStart = RootStart + (RootEntries * EntryLength);
    private const int EntryLength = 32;
    private const byte IsFolder = 0x10;
    private const int FirstCluster = 2;
    private const int FolderCluster = FirstCluster;
    private const int BootCluster = FirstCluster + 1;
    private const int FileCluster = FirstCluster + 2;

    private const int PageLength = 4096;
    private const int PaddingLength = 2 << 20;

    /// <summary>What follows the code: 2 MiB of no meaning, then the text.</summary>
    private const int TextOffset = SectorLength + PaddingLength;

    /// <summary>64-bit code: prints bytes up to a 0 to the serial port, then ends the machine.</summary>
    private static readonly byte[] s_code =
    [
        0x48, 0x8d, 0x35, 0, 0, 0, 0, 0xfc, //                    rsi = the text
        0xac, 0x84, 0xc0, 0x74, 0x14, 0x88, 0xc4, //              next byte; 0 ends
        0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, //  until the serial port has room
        0x66, 0xba, 0xf8, 0x03, 0x88, 0xe0, 0xee, 0xeb, 0xe7, //  print, again
        0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, //              end
    ];

    /// <summary>The disk's bytes.</summary>
    public static byte[] Make(string text)
    {
        byte[] program = MakeProgram(text);
        byte[] disk = new byte[SectorCount * SectorLength];
        WriteBootSector(disk);
        int clusters = (program.Length + ClusterLength - 1) / ClusterLength;
        for (int table = 0; table < 2; table++)
        {
            Span<byte> chain = disk.AsSpan(TablesStart + (table * TableSectors * SectorLength));
            Put16(chain, 0, 0xfff8);
            Put16(chain, 2, 0xffff);
            Put16(chain, 2 * FolderCluster, 0xffff);
            Put16(chain, 2 * BootCluster, 0xffff);
            for (int i = 0; i < clusters; i++)
            {
                int cluster = FileCluster + i;
                Put16(chain, 2 * cluster, i == clusters - 1 ? 0xffff : cluster + 1);
            }
        }

        WriteEntry(disk.AsSpan(RootStart), "EFI        ", IsFolder, FolderCluster, 0);
        WriteFolder(Cluster(disk, FolderCluster), FolderCluster, 0);
        WriteEntry(Cluster(disk, FolderCluster)[(2 * EntryLength)..], "BOOT       ", IsFolder, BootCluster, 0);
        WriteFolder(Cluster(disk, BootCluster), BootCluster, FolderCluster);
        WriteEntry(Cluster(disk, BootCluster)[(2 * EntryLength)..], "BOOTX64 EFI", 0, FileCluster, program.Length);
        program.CopyTo(Cluster(disk, FileCluster));
        return disk;
    }

    private static Span<byte> Cluster(byte[] disk, int cluster) =>
        disk.AsSpan(DataStart + ((cluster - FirstCluster) * ClusterLength));

    private static void WriteBootSector(Span<byte> sector)
    {
        new byte[] { 0xeb, 0x3c, 0x90 }.CopyTo(sector);
        Encoding.ASCII.GetBytes("OUTBOARD", sector[3..]);
        Put16(sector, 11, SectorLength);
        sector[13] = ClusterLength / SectorLength;
        Put16(sector, 14, 1); // the tables follow this sector
        sector[16] = 2;
        Put16(sector, 17, RootEntries);
        Put16(sector, 19, SectorCount);
        sector[21] = 0xf8; // a fixed disk
        Put16(sector, 22, TableSectors);
        Put16(sector, 24, 63);
        Put16(sector, 26, 16);
        sector[36] = 0x80;
        sector[38] = 0x29; // the fields below are there
        Encoding.ASCII.GetBytes("NO NAME    FAT16   ", sector[43..]);
        Put16(sector, 510, 0xaa55);
    }

    private static void WriteFolder(Span<byte> folder, int own, int parent)
    {
        WriteEntry(folder, ".          ", IsFolder, own, 0);
        WriteEntry(folder[EntryLength..], "..         ", IsFolder, parent, 0);
    }

    private static void WriteEntry(Span<byte> entry, string name, byte attributes, int cluster, int length)
    {
        Encoding.ASCII.GetBytes(name, entry);
        entry[11] = attributes;
        Put16(entry, 26, cluster);
        Put32(entry, 28, length);
    }

    /// <summary>A program as UEFI loads it: headers, and one section that has all.</summary>
    private static byte[] MakeProgram(string text)
    {
        const int headersEnd = SectorLength, optionalStart = 0x58, optionalLength = 240, sectionStart = 0x148;
        int length = (TextOffset + text.Length + 1 + SectorLength - 1) / SectorLength * SectorLength;
        byte[] file = new byte[headersEnd + length];
        Put16(file, 0, 0x5a4d);
        Put32(file, 0x3c, 0x40);
        Put32(file, 0x40, 0x4550);
        Put16(file, 0x44, 0x8664); // x86-64
        Put16(file, 0x46, 1);
        Put16(file, 0x54, optionalLength);
        Put16(file, 0x56, 0x22); // can be run, and lie anywhere
        Span<byte> optional = file.AsSpan(optionalStart);
        Put16(optional, 0, 0x20b);
        Put32(optional, 4, length);
        Put32(optional, 16, PageLength); // entry point
        Put32(optional, 20, PageLength);
        Put32(optional, 32, PageLength); // alignment of sections in memory, and in the file
        Put32(optional, 36, SectorLength);
        Put32(optional, 56, PageLength + ((length + PageLength - 1) / PageLength * PageLength));
        Put32(optional, 60, headersEnd);
        Put16(optional, 68, 10); // an application of UEFI
        Put32(optional, 108, 16);
        Span<byte> section = file.AsSpan(sectionStart);
        Encoding.ASCII.GetBytes(".text", section);
        Put32(section, 8, length);
        Put32(section, 12, PageLength);
        Put32(section, 16, length);
        Put32(section, 20, headersEnd);
        Put32(section, 36, 0x60000020); // code, is run and read
        Span<byte> content = file.AsSpan(headersEnd);
        RandomNumberGenerator.Fill(content[SectorLength..TextOffset]);
        s_code.CopyTo(content);
        const int instruction = 7;
        Put32(content, 3, TextOffset - instruction);
        Encoding.ASCII.GetBytes(text, content[TextOffset..]);
        return file;
    }

    private static void Put16(Span<byte> target, int offset, int value) =>
        BinaryPrimitives.WriteUInt16LittleEndian(target[offset..], (ushort)value);

    private static void Put32(Span<byte> target, int offset, int value) =>
        BinaryPrimitives.WriteInt32LittleEndian(target[offset..], value);
}

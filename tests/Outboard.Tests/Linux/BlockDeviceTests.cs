// A real block device: a loop device, where the user of the tests may make one.
using System.Diagnostics;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class BlockDeviceTests
{
    private const int Block = 4096;
    private const int Megabyte = 1 << 20;

    [Fact]
    public void A_block_device_is_served_like_a_file()
    {
        using LoopDevice loop = LoopDevice.Create(4 * Megabyte);
        using BlockFile device = BlockFile.Open(loop.Path);
        Assert.True(device.IsBlockDevice);
        Assert.Equal(4 * Megabyte, device.SizeBytes);
        Assert.Equal(512, device.LogicalBlockSize);
        byte[] data = new byte[Megabyte];
        Array.Fill(data, (byte)0x77);
        Assert.Equal(Megabyte, device.Write(data, 0));
        Assert.Equal(0, device.DataSync());
        Assert.Equal(-Errno.NoSpace, device.Write(data, 4 * Megabyte));
        Assert.Equal(0, device.Read(data, 4 * Megabyte));
        Assert.Equal(-Errno.InvalidArgument, device.Discard(100, Block));
        Assert.Equal(0, device.Discard(0, Block));
        Assert.Equal(0, device.WriteZeroes(Block, Block, mayUnmap: false));
        Assert.Equal(0, device.WriteZeroes(2 * Block, Block, mayUnmap: true));
        Assert.Equal(Megabyte, device.Read(data, 0));
        Assert.True(data.AsSpan(0, 3 * Block).IndexOfAnyExcept((byte)0) < 0);
        Assert.Equal(0x77, data[3 * Block]);
        Assert.True(device.TryLock(exclusive: true));
    }

    [Theory]
    [InlineData(FileIoEngineKind.IoUring)]
    [InlineData(FileIoEngineKind.Threads)]
    public void Engines_reach_block_devices_directly(FileIoEngineKind kind)
    {
        using LoopDevice loop = LoopDevice.Create(Megabyte);
        using BlockFile device = BlockFile.Open(loop.Path, direct: true);
        Assert.InRange(device.DirectAlignment, 1, Block);
        using AlignedBuffer buffer = new(Block);
        using FileIoEngine engine = FileIoEngine.Create(2, kind);
        buffer.Span.Fill(0x42);
        Assert.True(engine.TryWrite(device, [buffer.Segment], Block, 1, durable: true));
        Assert.Equal(Block, WaitForOne(engine));
        AllocateMode punch = AllocateMode.PunchHole | AllocateMode.KeepSize;
        Assert.True(engine.TryAllocate(device, punch, Block, 512, 2));
        Assert.Equal(0, WaitForOne(engine));
        Assert.True(engine.TryRead(device, [buffer.Segment], Block, 3));
        Assert.Equal(Block, WaitForOne(engine));
        Assert.Equal(0, buffer.Span[511]);
        Assert.Equal(0x42, buffer.Span[512]);
        Assert.True(engine.TryWrite(device, [buffer.Segment], Megabyte, 4));
        Assert.Equal(-Errno.NoSpace, WaitForOne(engine));
    }

    [Fact]
    public void A_resized_device_is_noticed_on_demand()
    {
        using LoopDevice loop = LoopDevice.Create(Megabyte);
        using BlockFile device = BlockFile.Open(loop.Path);
        loop.Resize(2 * Megabyte);
        Assert.Equal(Megabyte, device.SizeBytes);
        Assert.Equal(2 * Megabyte, device.RefreshSize());
    }

    private static int WaitForOne(FileIoEngine engine)
    {
        Span<FileCompletion> completion = stackalloc FileCompletion[1];
        engine.Submit();
        while (engine.Reap(completion) == 0)
        {
            Thread.Yield();
        }

        return completion[0].Result;
    }

    private sealed class LoopDevice : IDisposable
    {
        private readonly TemporaryFile _file;

        private LoopDevice(TemporaryFile file, string path)
        {
            _file = file;
            Path = path;
        }

        public string Path { get; }

        public static LoopDevice Create(long sizeBytes)
        {
            Assert.SkipUnless(Environment.IsPrivilegedProcess, "only root makes loop devices");
            TemporaryFile file = TemporaryFile.OnDisk(sizeBytes);
            string path = Run("--find", "--show", file.Path);
            if (path.Length == 0)
            {
                file.Dispose();
                Assert.Skip("no loop device");
            }

            return new LoopDevice(file, path);
        }

        public void Resize(long sizeBytes)
        {
            using (FileStream stream = new(_file.Path, FileMode.Open))
            {
                stream.SetLength(sizeBytes);
            }

            _ = Run("--set-capacity", Path);
        }

        public void Dispose()
        {
            _ = Run("--detach", Path);
            _file.Dispose();
        }

        private static string Run(params string[] arguments)
        {
            ProcessStartInfo start = new("losetup", arguments)
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            using Process process = Process.Start(start)!;
            string output = process.StandardOutput.ReadToEnd().Trim();
            process.WaitForExit();
            return process.ExitCode == 0 ? output : string.Empty;
        }
    }
}

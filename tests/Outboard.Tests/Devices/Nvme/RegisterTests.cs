// The register set: what it says, accesses of any width and alignment, enabling with what cannot be, shutdown.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Spec;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class RegisterTests : IAsyncLifetime
{
    private readonly MemoryDisk _disk = new(1 << 20);
    private NvmeController _controller = null!;

    private PciBar Registers => _controller.Bars[0]!;

    public ValueTask InitializeAsync()
    {
        _controller = new NvmeController(
            [new NvmeNamespace(_disk)], new NvmeOptions { QueueSize = 256, DoorbellStride = 2, QueuePairs = 3 });
        return default;
    }

    public async ValueTask DisposeAsync()
    {
        await _controller.DisposeAsync();
        _disk.Dispose();
    }

    [Fact]
    public void The_function_is_an_nvme_controller()
    {
        byte[] config = new byte[256];
        _controller.ReadConfig(0, config);
        Assert.Equal([0x02, 0x08, 0x01], config[9..12]);
        ulong capabilities = Read(NvmeRegister.Capabilities, 8);
        Assert.Equal(255u, capabilities & 0xffff);
        Assert.Equal(1u, (capabilities >> 16) & 1);
        Assert.Equal(2u, (capabilities >> 32) & 0xf);
        Assert.Equal(1u, (capabilities >> 37) & 0xff);
        Assert.Equal(0u, (capabilities >> 48) & 0xf);
        Assert.Equal(4u, (capabilities >> 52) & 0xf);
        Assert.Equal(0x10400u, Read(NvmeRegister.Version, 4));
        Assert.Equal(0u, Read(NvmeRegister.Status, 4));
        Assert.Equal(4, _controller.Interrupts[Outboard.Pci.Interrupts.InterruptKind.Msix].Count);
    }

    [Fact]
    public async Task Registers_take_aligned_words_and_nothing_else()
    {
        await WriteAsync(NvmeRegister.AdminSubmissionQueue, [1, 2, 3, 4, 5, 6, 7, 8]);
        Assert.Equal(0x0807060504030000u, Read(NvmeRegister.AdminSubmissionQueue, 8));
        await WriteAsync(NvmeRegister.AdminSubmissionQueue + 4, [0xff, 0, 0, 0]);
        Assert.Equal(0xff04030000u, Read(NvmeRegister.AdminSubmissionQueue, 8));
        await WriteAsync(NvmeRegister.AdminSubmissionQueue, [0xff, 0xff]);
        await WriteAsync(NvmeRegister.AdminSubmissionQueue + 1, [0xff, 0xff, 0xff]);
        await WriteAsync(NvmeRegister.AdminSubmissionQueue + 3, [0xff, 0xff, 0xff, 0xff]);
        Assert.Equal(0xff04030000u, Read(NvmeRegister.AdminSubmissionQueue, 8));
        Assert.Equal(0x04u, Read(NvmeRegister.AdminSubmissionQueue + 3, 1));

        // one write over several registers, the last of which is covered in part only
        await WriteAsync(NvmeRegister.AdminQueueAttributes, [0xff, 0xff, 0xff, 0xff, 0, 0x10, 0, 0, 9]);
        Assert.Equal(0x0fff0fffu, Read(NvmeRegister.AdminQueueAttributes, 4));
        Assert.Equal(0xff00001000u, Read(NvmeRegister.AdminSubmissionQueue, 8));

        await WriteAsync(NvmeRegister.InterruptMaskSet, [0xf0, 0, 0, 0]);
        await WriteAsync(NvmeRegister.InterruptMaskClear, [0x30, 0, 0, 0]);
        Assert.Equal(0xc0u, Read(NvmeRegister.InterruptMaskSet, 4));
        Assert.Equal(0xc0u, Read(NvmeRegister.InterruptMaskClear, 4));
    }

    [Fact]
    public async Task Any_access_is_taken()
    {
        Random random = new(5);
        for (int round = 0; round < 20_000; round++)
        {
            byte[] data = new byte[random.Next(1, 40)];
            ulong offset = (ulong)(random.Next(2) == 0 ? random.Next(0x60) : random.Next((int)Registers.SizeBytes));
            offset = Math.Min(offset, Registers.SizeBytes - (ulong)data.Length);
            random.NextBytes(data);
            if (random.Next(2) == 0)
            {
                _controller.ReadBarAt(Registers, offset, data);
            }
            else
            {
                await _controller.WriteBarAtAsync(Registers, offset, data);
            }
        }

        await _controller.ResetAsync(PciResetKind.Device);
        Assert.Equal(0u, Read(NvmeRegister.Status, 4));
        Assert.Equal(0u, Read(NvmeRegister.Configuration, 4));
        Assert.Equal(0u, Read(NvmeRegister.AdminQueueAttributes, 4));
    }

    [Theory]
    [InlineData(0x00460011, 0x001f001f)]
    [InlineData(0x00460881, 0x001f001f)]
    [InlineData(0x00460801, 0x001f001f)]
    [InlineData(0x00460001, 0x001f0000)]
    [InlineData(0x00460001, 0x0000001f)]
    public async Task What_cannot_be_enabled_is_told(uint configuration, uint attributes)
    {
        await WriteAsync(NvmeRegister.AdminQueueAttributes, BitConverter.GetBytes(attributes));
        await WriteAsync(NvmeRegister.Configuration, BitConverter.GetBytes(configuration));
        Assert.Equal((uint)NvmeControllerStatus.Fatal, Read(NvmeRegister.Status, 4));
        await WriteAsync(NvmeRegister.Configuration, [0, 0, 0, 0]);
        await AwaitStatusAsync(NvmeControllerStatus.None);
    }

    [Fact]
    public async Task Admin_queues_without_memory_fail_the_controller()
    {
        await EnableAsync();
        await WriteAsync(NvmeRegister.Doorbells, [1, 0, 0, 0]);
        await AwaitStatusAsync(NvmeControllerStatus.Ready | NvmeControllerStatus.Fatal);
        for (int round = 0; round < 20; round++)
        {
            await WriteAsync(NvmeRegister.Configuration, [0, 0, 0, 0]);
            await EnableAsync();
        }

        await AwaitStatusAsync(NvmeControllerStatus.Ready);

        // not written while enabled
        await WriteAsync(NvmeRegister.AdminQueueAttributes, [1, 0, 1, 0]);
        Assert.Equal(0x001f001fu, Read(NvmeRegister.AdminQueueAttributes, 4));
    }

    [Fact]
    public async Task A_shutdown_completes()
    {
        await EnableAsync();
        await WriteAsync(NvmeRegister.Configuration, BitConverter.GetBytes(0x00464001u));
        await AwaitStatusAsync(NvmeControllerStatus.Ready | NvmeControllerStatus.ShutdownComplete);
        await WriteAsync(NvmeRegister.Configuration, [0, 0, 0, 0]);
        await AwaitStatusAsync(NvmeControllerStatus.None);
    }

    [Fact]
    public void Options_that_cannot_be()
    {
        NvmeNamespace one = new(_disk);
        Assert.ThrowsAny<ArgumentException>(() => new NvmeController([]));
        Assert.ThrowsAny<ArgumentException>(() => new NvmeController([.. Enumerable.Repeat(one, 65)]));
        foreach (NvmeOptions options in (NvmeOptions[])
        [
            new() { Serial = string.Empty }, new() { Serial = new string('x', 21) }, new() { Serial = "\u00e4" },
            new() { Model = "a\nb" }, new() { QueuePairs = 0 }, new() { QueuePairs = 256 }, new() { QueueSize = 3 },
            new() { QueueSize = 8192 }, new() { DoorbellStride = 11 }, new() { WorkerCount = -1 },
        ])
        {
            Assert.ThrowsAny<ArgumentException>(() => new NvmeController([one], options));
        }

        Assert.ThrowsAny<ArgumentException>(() => new NvmeNamespace(_disk, 1024));
    }

    private async Task EnableAsync()
    {
        await WriteAsync(NvmeRegister.AdminQueueAttributes, BitConverter.GetBytes(0x001f001f));
        await WriteAsync(NvmeRegister.Configuration, BitConverter.GetBytes(0x00460001));
    }

    private ulong Read(int offset, int bytes)
    {
        byte[] data = new byte[8];
        _controller.ReadBarAt(Registers, (ulong)offset, data.AsSpan(0, bytes));
        return BitConverter.ToUInt64(data);
    }

    private ValueTask WriteAsync(int offset, byte[] data) =>
        _controller.WriteBarAtAsync(Registers, (ulong)offset, data);

    private async Task AwaitStatusAsync(NvmeControllerStatus status)
    {
        for (int look = 0; Read(NvmeRegister.Status, 4) != (uint)status; look++)
        {
            Assert.True(look < 10_000, $"status 0x{Read(NvmeRegister.Status, 4):x}");
            await Task.Delay(1, TestContext.Current.CancellationToken);
        }
    }
}

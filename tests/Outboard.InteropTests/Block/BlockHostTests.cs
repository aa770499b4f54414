// BlockHostTests.cs - qemu-io and qemu-img use a vhost-user-blk disk by way of libblkio, without any guest. The same
// tests run against any back-end: a derived class says how to start it.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public abstract class BlockHostTests
{
    private const long DiskLength = 64 << 20;

    [Fact]
    public async Task What_is_written_is_read_back_and_lies_in_the_image()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        await QemuIo.RunAsync(
            backend.SocketPath,
            "write -P 0x5a 0 64k", "write -P 0xa5 1M 1M", "write -P 0x11 67104768 4k", "write -P 0x77 512 512",
            "flush");
        string[] reads =
        [
            "read -P 0x5a 0 512", "read -P 0x77 512 512", "read -P 0x5a 1k 63k", "read -P 0xa5 1M 1M",
            "read -P 0x11 67104768 4k", "read -P 0 2M 1M",
        ];
        await QemuIo.RunAsync(backend.SocketPath, reads);
        await QemuIo.ReadFileAsync(options.ImagePath, reads);
        await QemuIo.CompareAsync(backend.SocketPath, options.ImagePath);
    }

    [Fact]
    public async Task Zeroes_and_discards_leave_zeroes()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StartBackendAsync(OptionsIn(folder));

        await QemuIo.RunAsync(
            backend.SocketPath,
            "write -P 0x5a 0 4M", "write -z 1M 1M", "write -z -u 2M 1M", "discard 3M 1M", "flush",
            "read -P 0x5a 0 1M", "read -P 0 1M 2M");
    }

    [Fact]
    public async Task A_vectored_request_is_one_request()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StartBackendAsync(OptionsIn(folder));

        await QemuIo.RunAsync(
            backend.SocketPath,
            "writev -P 0x3c 8k 512 1k 4k 64k 512", "readv -P 0x3c 8k 4k 512 1k 64k 512", "read -P 0 0 8k");
    }

    [Fact]
    public async Task Requests_in_numbers_are_all_answered()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        await QemuIo.BenchAsync(backend.SocketPath, requests: 20_000, depth: 32, size: 4096);
        await QemuIo.BenchAsync(backend.SocketPath, requests: 20_000, depth: 64, size: 4096, writes: true);
        await QemuIo.BenchAsync(backend.SocketPath, requests: 500, depth: 8, size: 1 << 20);

        string copy = folder.Combine("copy.img");
        await QemuIo.CopyToFileAsync(backend.SocketPath, copy);
        await QemuIo.CompareAsync(backend.SocketPath, copy);
    }

    [Fact]
    public async Task A_read_only_disk_is_read()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await QemuIo.RunOnFileAsync(options.ImagePath, "write -P 0x42 0 1M");
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options with { IsReadOnly = true });

        await QemuIo.RunReadOnlyAsync(backend.SocketPath, "read -P 0x42 0 1M");
    }

    [Fact]
    public async Task A_disk_past_the_page_cache_works_alike()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { IsDirect = true };
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        await QemuIo.RunAsync(
            backend.SocketPath, "write -P 0x5a 512 3k", "write -P 0xa5 1M 1M", "flush", "read -P 0x5a 512 3k",
            "read -P 0xa5 1M 1M", "read -P 0 0 512");
    }

    private protected abstract Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options);

    private protected static BlockBackendOptions OptionsIn(TempFolder folder) => new()
    {
        SocketPath = folder.Combine("block.sock"),
        ImagePath = folder.CreateImage("disk.img", DiskLength),
    };
}

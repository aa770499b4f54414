// OutboardBlockTests.cs - the block tests against our own back-end.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public sealed class OutboardBlockGuestTests : BlockGuestTests
{
    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}

public sealed class OutboardBlockHostTests : BlockHostTests
{
    /// <summary>Our lock and QEMU's keep each other out.</summary>
    [Fact]
    public async Task An_image_that_is_served_is_locked_for_qemu_too()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        LabException refusal = await Assert.ThrowsAsync<LabException>(
            () => QemuIo.RunOnFileAsync(options.ImagePath, "read 0 512"));
        Assert.Contains("lock", refusal.Message, StringComparison.Ordinal);
    }

    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}

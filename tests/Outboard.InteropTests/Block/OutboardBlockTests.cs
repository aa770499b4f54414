// OutboardBlockTests.cs - the block tests against our own back-end.
namespace Outboard.InteropTests.Block;

public sealed class OutboardBlockGuestTests : BlockGuestTests
{
    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}

public sealed class OutboardBlockHostTests : BlockHostTests
{
    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}

// StorageDaemonBlockTests.cs - the self-check of the rig: every block test must pass against qemu-storage-daemon. When
// one fails here, the rig or this machine is at fault, not our back-end.
namespace Outboard.InteropTests.Block;

public sealed class StorageDaemonGuestTests : BlockGuestTests
{
    private protected override string ExpectedSerial => StorageDaemonBackend.FixedSerial;

    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await StorageDaemonBackend.StartAsync(options);
}

public sealed class StorageDaemonHostTests : BlockHostTests
{
    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await StorageDaemonBackend.StartAsync(options);
}

// One test against a back-end: the rig, and the proof afterwards that the back-end kept nothing.
using Outboard.VhostUser.Backend;
using Xunit;

namespace Outboard.Tests.VhostUser;

[Collection(VhostUserCollection.Name)]
public abstract class BackendTest : IAsyncLifetime
{
    private static bool s_warm;
    private OpenThings _before;

    private protected BackendRig Rig { get; private set; } = null!;

    /// <summary>Errors of this program that the test provokes; any other fails it.</summary>
    private protected bool ExpectsFailure { get; set; }

    public async ValueTask InitializeAsync()
    {
        if (!s_warm)
        {
            // The runtime opens descriptors of its own with the first socket.
            await using BackendRig first = new();
            await first.ExpectServesNextAsync();
            s_warm = true;
        }

        _before = OpenThings.Count();
        Rig = new BackendRig(Configure, CreateDevice());
    }

    public virtual async ValueTask DisposeAsync()
    {
        await Rig.DisposeAsync();
        if (!ExpectsFailure)
        {
            Assert.Empty(Rig.Log.Critical);
        }

        await _before.AssertNothingLeftAsync();
        GC.SuppressFinalize(this);
    }

    private protected virtual FakeDevice CreateDevice() => new();

    private protected virtual VhostUserBackendOptions Configure(VhostUserBackendOptions options) => options;
}

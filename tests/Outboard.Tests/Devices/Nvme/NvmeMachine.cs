// A process that a controller moves to: a controller of its own, served over vfio-user, with its client.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Pci;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

internal sealed class NvmeMachine : IAsyncDisposable
{
    private readonly ServedFunction _served;

    private NvmeMachine(Disk disk, NvmeOptions options, int blockSize)
    {
        Controller = new NvmeController([new NvmeNamespace(disk, blockSize)], options);
        _served = new ServedFunction(Controller);
    }

    /// <summary>What both sides of a move have.</summary>
    public static NvmeOptions Options { get; } = new() { QueuePairs = 4, QueueSize = 64, WorkerCount = 2 };

    public NvmeController Controller { get; }

    public VfioUserClient Client { get; private set; } = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public static async Task<NvmeMachine> StartAsync(Disk disk, NvmeOptions? options = null, int blockSize = 512)
    {
        NvmeMachine machine = new(disk, options ?? Options, blockSize);
        machine.Client = await VfioUserClient.ConnectAsync(machine._served.Path, null, Cancellation);
        return machine;
    }

    /// <summary>The driver's memory, for another client.</summary>
    public static Task MapAsync(VfioUserClient client, NvmeRig rig) => client.MapAsync(
        rig.Memory.GuestAddress, rig.Memory.File, 0, rig.Memory.SizeBytes, Cancellation);

    /// <summary>The stream comes in pieces; the driver goes on here.</summary>
    public async Task ArriveAsync(NvmeRig rig, List<byte> stream)
    {
        await ReceiveAsync(rig, stream);
        await Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
    }

    /// <summary>The stream comes in pieces, and the controller waits.</summary>
    public async Task ReceiveAsync(NvmeRig rig, List<byte> stream)
    {
        await MapAsync(Client, rig);
        await rig.Driver.FollowAsync(Client, Cancellation);
        await MigrationStream.ReceiveAsync(Client, stream);
    }

    /// <summary>The client goes away, and another one comes.</summary>
    public async Task ReconnectAsync()
    {
        await Client.DisposeAsync();
        Client = await VfioUserClient.ConnectAsync(_served.Path, null, Cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await _served.DisposeAsync();
        await Controller.DisposeAsync();
    }
}

// The stream of a migration, as a client moves it from one server to another.
using Outboard.Pci;
using Outboard.VfioUser.Client;
using Xunit;

namespace Outboard.Tests.VfioUser.Client;

internal static class MigrationStream
{
    private const int PartBytes = 777;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Stops a function, and reads its state.</summary>
    public static async Task<List<byte>> LeaveAsync(VfioUserClient client)
    {
        List<byte> stream = [];
        await client.SetMigrationStateAsync(MigrationState.StopCopy, Cancellation);
        await ReadAllAsync(client, stream);
        return stream;
    }

    /// <summary>Reads what there is.</summary>
    public static async Task ReadAllAsync(VfioUserClient client, List<byte> stream)
    {
        byte[] part = new byte[PartBytes];
        int count;
        do
        {
            count = await client.ReadMigrationDataAsync(part, Cancellation);
            stream.AddRange(part[..count]);
        }
        while (count == part.Length);
    }

    /// <summary>Gives a function a state, in pieces. It waits for being let run.</summary>
    public static async Task ReceiveAsync(VfioUserClient client, List<byte> stream)
    {
        await client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        foreach (byte[] part in stream.Chunk(100))
        {
            await client.WriteMigrationDataAsync(part, Cancellation);
        }
    }

    /// <summary>Gives a function a state, and lets it run.</summary>
    public static async Task ArriveAsync(VfioUserClient client, List<byte> stream)
    {
        await ReceiveAsync(client, stream);
        await client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
    }
}

// StorageDaemonBackend.cs - qemu-storage-daemon as vhost-user-blk back-end: the foreign one that proves the rig.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Lab;

namespace Outboard.InteropTests.Block;

internal sealed class StorageDaemonBackend : IBlockBackendUnderTest
{
    /// <summary>The serial number that this back-end gives to every disk.</summary>
    public const string FixedSerial = "vhost_user_blk";

    private const string NodeName = "disk";
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    private readonly PeerProcess _process;
    private readonly string _monitorPath;

    private StorageDaemonBackend(PeerProcess process, string socketPath, string monitorPath)
    {
        _process = process;
        SocketPath = socketPath;
        _monitorPath = monitorPath;
    }

    public string SocketPath { get; }

    public static async Task<StorageDaemonBackend> StartAsync(BlockBackendOptions options)
    {
        string monitorPath = options.SocketPath + ".qmp";
        string access = options.IsReadOnly ? "read-only=on" : "read-only=off";
        string caching = options.IsDirect ? "cache.direct=on" : "cache.direct=off";
        string writable = options.IsReadOnly ? "off" : "on";
        PeerProcess process = await PeerProcess.StartPeerAsync(
            "qemu-storage-daemon",
            "--blockdev", $"driver=file,node-name=file,filename={options.ImagePath},{access},{caching},discard=unmap",
            "--blockdev", $"driver=raw,node-name={NodeName},file=file,{access},{caching},discard=unmap",
            "--chardev", $"socket,id=monitor,path={monitorPath},server=on,wait=off",
            "--monitor", "chardev=monitor",
            "--export",
            $"vhost-user-blk,id=export,node-name={NodeName},addr.type=unix,addr.path={options.SocketPath}," +
            $"writable={writable},num-queues={options.QueueCount}");
        try
        {
            await process.WaitForSocketAsync(options.SocketPath, s_startLimit);
        }
        catch
        {
            await process.DisposeAsync();
            throw;
        }

        return new StorageDaemonBackend(process, options.SocketPath, monitorPath);
    }

    public Task KillAsync() => _process.KillAsync();

    public async Task ResizeAsync(long length)
    {
        using QmpClient monitor = await QmpClient.ConnectAsync(_monitorPath);
        await monitor.ExecuteAsync("block_resize", new JsonObject { ["node-name"] = NodeName, ["size"] = length });
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();
}

// TapNetwork.cs - a network namespace of a test's own, with a tap in it and nothing else. Programs started in it see
// that network only. It needs root, and says so; it vanishes with Dispose.
using System.Diagnostics;
using Outboard.InteropTests.Lab;

namespace Outboard.InteropTests.Net;

internal sealed class TapNetwork : IAsyncDisposable
{
    public const string TapName = "outboard0";
    public const string HostAddress = "10.77.0.1";
    public const string GuestAddress = "10.77.0.2";

    private readonly string _name = $"outboard-{Guid.NewGuid():N}"[..20];

    private TapNetwork()
    {
    }

    public static async Task<TapNetwork> MakeAsync(int queues)
    {
        TapNetwork network = new();
        await RunAsync("ip", "netns", "add", network._name);
        try
        {
            string[] several = queues > 1 ? ["multi_queue"] : [];
            await network.RunInsideAsync(
                ["ip", "tuntap", "add", "dev", TapName, "mode", "tap", "vnet_hdr", .. several]);
            await network.RunInsideAsync("ip", "address", "add", $"{HostAddress}/24", "dev", TapName);
            await network.RunInsideAsync("ip", "link", "set", TapName, "up");
            await network.RunInsideAsync("ip", "link", "set", "lo", "up");
            return network;
        }
        catch
        {
            await network.DisposeAsync();
            throw;
        }
    }

    /// <summary>A bridge with the host's address, and two taps in it: the way to a guest that moves.</summary>
    public static async Task<TapNetwork> MakeBridgeAsync(string bridge, params string[] taps)
    {
        TapNetwork network = new();
        await RunAsync("ip", "netns", "add", network._name);
        try
        {
            await network.RunInsideAsync("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0");
            await network.RunInsideAsync("ip", "address", "add", $"{HostAddress}/24", "dev", bridge);
            await network.RunInsideAsync("ip", "link", "set", bridge, "up");
            foreach (string tap in taps)
            {
                await network.RunInsideAsync("ip", "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr");

                // "mast" is short for the word that the program knows.
                await network.RunInsideAsync("ip", "link", "set", tap, "mast", bridge, "up");
            }

            return network;
        }
        catch
        {
            await network.DisposeAsync();
            throw;
        }
    }

    /// <summary>The arguments that run a program inside, to be given to "ip".</summary>
    public string[] Inside(params string[] command) => ["netns", "exec", _name, .. command];

    public Task<string> RunInsideAsync(params string[] command) => RunAsync("ip", Inside(command));

    public async ValueTask DisposeAsync() => await RunAsync("ip", "netns", "delete", _name);

    private static async Task<string> RunAsync(string program, params string[] arguments)
    {
        string line = $"{program} {string.Join(' ', arguments)}";
        ProcessStartInfo information = new(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(information) ?? throw new LabException($"'{line}' did not start");
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        string errors = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return process.ExitCode == 0
            ? await output
            : throw new LabException($"'{line}' failed: {errors.Trim()}; remedy: run as root, with iproute2 installed");
    }
}

// "outboard bench nvme": a load generator for any NVMe controller that is served over vfio-user, with the library's own
// driver: random reads of one queue.
using System.CommandLine;
using System.Globalization;
using Outboard.Cli.Text;
using Outboard.Devices.Nvme.Driver;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Cli.Bench;

internal static class BenchNvmeCommand
{
    private const int MostDepth = 1024;
    private const int LongestSeconds = 3600;
    private const ulong MemoryBytes = 64 << 20;

    public static Command Create()
    {
        ValueOption<string> socket = ValueOption.Text("--vfio-user-socket", "PATH", "The controller's socket.");
        ValueOption<int?> depth = ValueOption.Number(
            "--queue-depth", "N", "Reads in flight. [default: 32]", 1, MostDepth);
        ValueOption<double?> duration = ValueOption.Seconds(
            "--duration", "Measured time in seconds. [default: 5]", LongestSeconds);
        ValueOption<double?> warmUp = ValueOption.Seconds(
            "--warm-up", "Time before that in seconds. [default: 0.5]", LongestSeconds);
        ValueOption<string> mode = ValueOption.Choice(
            "--mode", "eventfd: sleep when nothing is there; poll: never sleep, without interrupts. [default: eventfd]",
            "eventfd", "poll");
        SwitchOption noShadow = new("--no-shadow-doorbells", "Ring each doorbell by a message.");
        SwitchOption json = new("--json", "Print one JSON object.");
        Command command = new("nvme", "Put random reads of 4 KiB on an NVMe controller, and measure them.");
        foreach (Option option in (Option[])[socket, depth, duration, warmUp, mode, noShadow, json])
        {
            command.Add(option);
        }

        command.SetAction((result, _) => RunAsync(
            socket.Read(result) ?? throw new CommandLineException("no socket: give --vfio-user-socket=PATH"),
            depth.Read(result) ?? 32,
            TimeSpan.FromSeconds(warmUp.Read(result) ?? 0.5),
            TimeSpan.FromSeconds(duration.Read(result) ?? 5),
            mode.Read(result) == "poll",
            !noShadow.Read(result),
            json.Read(result)));
        return command;
    }

    private static async Task<int> RunAsync(
        string socket, int depth, TimeSpan warmUp, TimeSpan duration, bool polls, bool shadow, bool wantsJson)
    {
        VfioUserClient client = await VfioUserClient.ConnectAsync(socket).ConfigureAwait(false);
        await using (client.ConfigureAwait(false))
        {
            using DriverMemory memory = new(MemoryBytes);
            await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes).ConfigureAwait(false);
            using NvmeDriver driver =
                await NvmeDriver.StartAsync(client, memory, shadow).ConfigureAwait(false);
            (ulong blocks, int blockBytes) = await driver.GetSizeAsync(1).ConfigureAwait(false);
            uint size = System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(depth + 1, 64));
            NvmeDriverQueue queue = await driver.CreateQueueAsync(1, size, !polls).ConfigureAwait(false);
            using NvmeLoad load = new(queue, memory, depth, blocks, blockBytes, polls);
            Thread thread = new(() => load.Run(warmUp, duration)) { Name = "load" };
            thread.Start();
            thread.Join();
            await driver.StopAsync().ConfigureAwait(false);
            Console.Out.Write(Describe(load, depth, queue.DoorbellMessages, wantsJson));
            return load.Errors == 0 ? 0 : 1;
        }
    }

    private static string Describe(NvmeLoad load, int depth, long messages, bool wantsJson)
    {
        double rate = load.Latency.Count / load.Elapsed.TotalSeconds;
        double middle = load.Latency.Percentile(0.5) / 1000.0;
        double most = load.Latency.Percentile(0.99) / 1000.0;
        return wantsJson
            ? string.Create(
                CultureInfo.InvariantCulture,
                $"{{\"iops\":{rate:F0},\"depth\":{depth},\"p50_us\":{middle:F2},\"p99_us\":{most:F2},"
                + $"\"errors\":{load.Errors},\"sleeps\":{load.Sleeps},\"doorbell_messages\":{messages}}}\n")
            : string.Create(
                CultureInfo.InvariantCulture,
                $"4 KiB random read, depth {depth}: {rate:N0} IOPS, p50 {middle:F2} us, p99 {most:F2} us, "
                + $"{load.Errors} errors, {load.Sleeps} sleeps, {messages} doorbells by message\n");
    }
}

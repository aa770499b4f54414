// Many devices in one process on few threads: what an idle and a busy device costs.
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- scale [COUNT...]
// The devices are null disks in a child process, on shared workers. The parent is their front-end; what it reports is
// the child's: memory, threads, processor time while nothing happens, requests a second and processor time for each.
using System.Diagnostics;
using System.Globalization;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Benchmarks;

/// <summary>The measurement, and its child process.</summary>
internal static class Scale
{
    public const string Name = "scale";
    public const string ChildName = "scale-devices";

    private const int Workers = 2;
    private const int QueueSize = 128;
    private const int Depth = 4;
    private const uint BlockBytes = 4096;

    /// <summary>A few devices are busy at a time, in turn: the front-ends cost the same for any count.</summary>
    private const int BusyAtOnce = 4;

    private static readonly int[] s_counts = [1, 16, 256, 1000];
    private static readonly TimeSpan s_idle = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_settle = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_busy = TimeSpan.FromSeconds(2);

    /// <summary>Measures each count of devices.</summary>
    public static async Task RunAsync(string[] arguments)
    {
        int[] counts = arguments.Length == 0
            ? s_counts
            : [.. arguments.Select(text => int.Parse(text, CultureInfo.InvariantCulture))];
        Console.WriteLine(
            "| devices | threads | resident MiB | KiB a device | connect ms | idle CPU % | kIOPS | CPU us |");
        Console.WriteLine("|---:|---:|---:|---:|---:|---:|---:|---:|");
        double first = 0;
        foreach (int count in counts)
        {
            first = await MeasureAsync(count, first).ConfigureAwait(false);
        }
    }

    /// <summary>The child: serves devices until its standard input ends.</summary>
    public static async Task ServeAsync(string folder, int count)
    {
        using CancellationTokenSource end = new();
        await using QueueWorkerSet workers = new(Workers, "worker");
        using NullDisk disk = new(1L << 30);
        VhostUserBackendOptions options = new() { Workers = workers };
        Task[] serving =
        [
            .. Enumerable.Range(0, count).Select(i =>
            {
                BlockDevice device = new(disk, new BlockDeviceOptions { QueueSize = QueueSize });
                return VhostUserBackend.ServeAsync(device, Path(folder, i), options, end.Token);
            }),
        ];
        Console.WriteLine("ready");
        await Console.In.ReadToEndAsync(end.Token).ConfigureAwait(false);
        await end.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(serving).ConfigureAwait(false);
    }

    private static string Path(string folder, int device) => $"{folder}/{device}.sock";

    private static async Task<double> MeasureAsync(int count, double firstKiB)
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("outboard-scale-");
        ProcessStartInfo start = new(Environment.ProcessPath!)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            ArgumentList = { ChildName, folder.FullName, count.ToString(CultureInfo.InvariantCulture) },
        };
        using Process child = Process.Start(start)!;
        await child.StandardOutput.ReadLineAsync().ConfigureAwait(false);
        List<Device> devices = [];
        try
        {
            long before = Stopwatch.GetTimestamp();
            for (int i = 0; i < count; i++)
            {
                devices.Add(await Device.ConnectAsync(Path(folder.FullName, i)).ConfigureAwait(false));
            }

            double connectMs = Stopwatch.GetElapsedTime(before).TotalMilliseconds / count;
            await Task.Delay(s_settle).ConfigureAwait(false);
            TimeSpan idleFrom = Read(child, out double residentKiB, out int threads);
            await Task.Delay(s_idle).ConfigureAwait(false);
            TimeSpan idle = Read(child, out _, out _) - idleFrom;
            TimeSpan busyFrom = Read(child, out _, out _);
            (long requests, TimeSpan took) = Drive(devices);
            TimeSpan busy = Read(child, out _, out _) - busyFrom;
            firstKiB = firstKiB == 0 ? residentKiB : firstKiB;
            string each = count == 1 ? "-" : $"{(residentKiB - firstKiB) / (count - 1):F0}";
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"| {count} | {threads} | {residentKiB / 1024:F0} | {each} | {connectMs:F2} | "
                + $"{100 * idle.TotalSeconds / s_idle.TotalSeconds:F1} | {requests / took.TotalSeconds / 1000:F0} | "
                + $"{busy.TotalMicroseconds / requests:F2} |"));
        }
        finally
        {
            foreach (Device device in devices)
            {
                await device.DisposeAsync().ConfigureAwait(false);
            }

            child.StandardInput.Close();
            await child.WaitForExitAsync().ConfigureAwait(false);
            folder.Delete(recursive: true);
        }

        return firstKiB;
    }

    private static TimeSpan Read(Process process, out double residentKiB, out int threads)
    {
        process.Refresh();
        residentKiB = process.WorkingSet64 / 1024.0;
        threads = process.Threads.Count;
        return process.TotalProcessorTime;
    }

    /// <summary>Keeps a few devices busy, and moves on to the next ones, until the time is over.</summary>
    private static (long Requests, TimeSpan Took) Drive(List<Device> devices)
    {
        long requests = 0;
        long began = Stopwatch.GetTimestamp();
        for (int first = 0; Stopwatch.GetElapsedTime(began) < s_busy; first = (first + BusyAtOnce) % devices.Count)
        {
            for (int round = 0; round < 16; round++)
            {
                int count = Math.Min(BusyAtOnce, devices.Count);
                for (int i = 0; i < count; i++)
                {
                    devices[(first + i) % devices.Count].Submit();
                }

                for (int i = 0; i < count; i++)
                {
                    requests += devices[(first + i) % devices.Count].Collect();
                }
            }
        }

        return (requests, Stopwatch.GetElapsedTime(began));
    }

    /// <summary>One device's front-end.</summary>
    private sealed class Device(VhostUserFrontend frontend, DriverMemory memory, FrontendQueue queue) : IAsyncDisposable
    {
        private readonly BlockDriver _driver = new(queue, Depth, BlockBytes);
        private readonly BlockCompletion[] _completions = new BlockCompletion[Depth];

        public static async Task<Device> ConnectAsync(string path)
        {
            VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(path).ConfigureAwait(false);
            DriverMemory memory = new(BlockDriver.MemoryBytes(Depth, BlockBytes) + (1 << 16));
            await frontend.ShareMemoryAsync(memory).ConfigureAwait(false);
            FrontendQueue queue = await frontend.StartQueueAsync(0, QueueSize, memory).ConfigureAwait(false);
            return new Device(frontend, memory, queue);
        }

        public void Submit()
        {
            for (int slot = 0; slot < Depth; slot++)
            {
                _driver.TryRead(slot, 0, BlockBytes);
            }

            _driver.Submit();
        }

        public int Collect()
        {
            int collected = 0;
            while (_driver.InFlight > 0)
            {
                int now = _driver.Collect(_completions);
                collected += now;
                if (now == 0 && !queue.WaitForUsed(10_000))
                {
                    throw new TimeoutException("a device does not answer");
                }
            }

            return collected;
        }

        public async ValueTask DisposeAsync()
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            queue.Dispose();
            memory.Dispose();
        }
    }
}

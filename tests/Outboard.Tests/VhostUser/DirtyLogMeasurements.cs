// What dirty logging costs: the same ring with the log on and off, in turns. No test of anything; run by hand in
// Release:
//   tests/Outboard.Tests/bin/Release/net10.0/Outboard.Tests --explicit only --show-live-output on
//     --filter-class Outboard.Tests.VhostUser.DirtyLogMeasurements
using System.Diagnostics;
using System.Runtime.InteropServices;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class DirtyLogMeasurements(ITestOutputHelper output)
{
    private const int Pairs = 15;
    private const uint BlockBytes = 4096;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>Chains through one ring on one thread, nothing else: the most that logging can weigh.</summary>
    [Theory(Explicit = true)]
    [InlineData(false)]
    [InlineData(true)]
    public void Ring_alone(bool isPacked)
    {
        ulong features = VirtioFeatures.Version1 | (isPacked ? VirtioFeatures.RingPacked : 0);
        using DriverMemory memory = new(8 << 20, 0x10_0000);
        DriverQueue driver = DriverQueue.Create(0, 256, memory, features);
        DriverBuffer[] buffers =
            [.. Enumerable.Range(0, 128).Select(_ => memory.Allocate(BlockBytes, BlockBytes))];
        using FileDescriptor file = MemFd.Create("outboard-log", 4096);
        using DirtyLog log = new(MemoryMapping.Map(file, 0, 4096));
        Compare($"ring alone, packed={isPacked}", isLogged =>
        {
            DriverQueue fresh = driver;
            using Virtqueue device = Virtqueue.Create(new VringSetup
            {
                Index = 0,
                Size = 256,
                Addresses = fresh.Addresses,
                Base = _base ?? fresh.InitialBase,
                Features = features,
                Memory = memory.Memory,
                Log = isLogged ? new QueueLog(log, fresh.Addresses.Used) : null,
            });
            double time = Drive(fresh, device, buffers);
            _base = device.Base;
            return time;
        });
        _base = null;
    }

    /// <summary>A null block back-end over vhost-user: reads of 4 KiB, 32 at a time.</summary>
    [Theory(Explicit = true)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Null_block_back_end(bool isPacked)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        using NullDisk disk = new(1 << 30);
        Task serving = VhostUserBackend.ServeConnectionAsync(new BlockDevice(disk), new SocketChannel(theirs));
        await using (VhostUserFrontend frontend = new(
            new SocketChannel(ours), new VhostUserFrontendOptions { UsePacked = isPacked }))
        {
            await frontend.NegotiateAsync(Token);
            using DriverMemory memory = new(8 << 20, 0x10_0000);
            await frontend.ShareMemoryAsync(memory, Token);
            using FrontendQueue queue = await frontend.StartQueueAsync(0, 128, memory, Token);
            BlockLoad load = new(queue, memory);
            load.Run(20_000);
            Compare($"null block back-end, packed={isPacked}", isLogged =>
            {
                using FrontendLog? log = isLogged ? frontend.StartLoggingAsync([queue]).GetAwaiter().GetResult() : null;
                double time = load.Run(200_000);
                if (isLogged)
                {
                    frontend.StopLoggingAsync([queue]).GetAwaiter().GetResult();
                }

                return time;
            });
            await frontend.StopQueueAsync(queue, Token);
        }

        await serving;
    }

    private uint? _base;

    private void Compare(string what, Func<bool, double> run)
    {
        run(false);
        run(true);
        double[] off = new double[Pairs];
        double[] on = new double[Pairs];
        for (int i = 0; i < Pairs; i++)
        {
            off[i] = run(false);
            on[i] = run(true);
        }

        double[] ratios = [.. off.Zip(on, (without, with) => with / without).Order()];
        output.WriteLine(
            $"{what}: off {off.Order().ElementAt(Pairs / 2):F1} ns, on {on.Order().ElementAt(Pairs / 2):F1} ns, "
            + $"ratio {ratios[Pairs / 2]:F3} ({ratios[0]:F3} .. {ratios[^1]:F3})");
    }

    private static double Drive(DriverQueue driver, Virtqueue device, DriverBuffer[] buffers)
    {
        const int chains = 1_000_000;
        long start = Stopwatch.GetTimestamp();
        for (int done = 0; done < chains; done += buffers.Length)
        {
            for (int i = 0; i < buffers.Length; i++)
            {
                driver.TryAdd([], [buffers[i]], (uint)i);
            }

            driver.Publish();
            while (device.TryTake(out DescriptorChain chain))
            {
                chain.Complete(BlockBytes);
            }

            device.Publish();
            while (driver.TryCollect(out _, out _))
            {
                // Collected.
            }
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / chains;
    }

    private sealed class BlockLoad
    {
        private const int Depth = 32;

        private readonly FrontendQueue _queue;
        private readonly DriverBuffer[] _headers;
        private readonly DriverBuffer[] _data;
        private readonly DriverBuffer[] _statuses;

        internal BlockLoad(FrontendQueue queue, DriverMemory memory)
        {
            _queue = queue;
            _headers = [.. Enumerable.Range(0, Depth).Select(_ => memory.Allocate(16))];
            _data = [.. Enumerable.Range(0, Depth).Select(_ => memory.Allocate(BlockBytes, BlockBytes))];
            _statuses = [.. Enumerable.Range(0, Depth).Select(_ => memory.Allocate(1))];
            foreach (DriverBuffer header in _headers)
            {
                MemoryMarshal.Write(header.Span, new BlockRequestHeader { Type = BlockRequestType.In });
            }
        }

        internal double Run(int requests)
        {
            long start = Stopwatch.GetTimestamp();
            for (int done = 0; done < requests; done += Depth)
            {
                for (int i = 0; i < Depth; i++)
                {
                    _queue.Ring.TryAdd([_headers[i]], [_data[i], _statuses[i]], (uint)i);
                }

                _queue.Submit();
                for (int left = Depth; left > 0;)
                {
                    if (_queue.Ring.TryCollect(out _, out _))
                    {
                        left--;
                    }
                    else
                    {
                        _queue.WaitForUsed(20_000);
                    }
                }
            }

            return Stopwatch.GetElapsedTime(start).TotalNanoseconds / requests;
        }
    }
}

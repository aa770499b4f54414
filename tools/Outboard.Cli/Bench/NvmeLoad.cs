// The load of one NVMe queue: as many reads in flight as the depth says, each replaced as soon as it is done.
using System.Diagnostics;
using Outboard.Devices.Nvme.Driver;
using Outboard.Linux.Events;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Cli.Bench;

/// <summary>Measures one queue. Run by one thread.</summary>
internal sealed class NvmeLoad : IDisposable
{
    private const uint ReadBytes = 4096;

    /// <summary>A controller that completes nothing for so long counts as dead.</summary>
    private const int StallMs = 10_000;

    private readonly NvmeDriverQueue _queue;
    private readonly DriverBuffer[] _buffers;
    private readonly long[] _started;
    private readonly NvmeFinished[] _finished;
    private readonly ulong _places;
    private readonly uint _blocksEach;
    private readonly bool _polls;
    private readonly Epoll _epoll = new();
    private readonly ulong[] _tags = new ulong[1];
    private RandomSequence _random = new(1);

    public NvmeLoad(
        NvmeDriverQueue queue, DriverMemory memory, int depth, ulong blocks, int blockBytes, bool polls)
    {
        _queue = queue;
        _blocksEach = Math.Max(1, ReadBytes / (uint)blockBytes);
        _places = blocks / _blocksEach;
        _polls = polls;
        _started = new long[depth];
        _finished = new NvmeFinished[depth];
        _buffers = new DriverBuffer[depth];
        for (int i = 0; i < depth; i++)
        {
            _buffers[i] = memory.Allocate(ReadBytes, ReadBytes);
        }

        if (queue.Completed is { } completed)
        {
            _epoll.Add(completed.Descriptor, 0);
        }
    }

    public LatencyHistogram Latency { get; } = new();

    public TimeSpan Elapsed { get; private set; }

    public long Errors { get; private set; }

    public long Sleeps { get; private set; }

    public void Run(TimeSpan warmUp, TimeSpan duration)
    {
        long begin = Stopwatch.GetTimestamp();
        long measured = 0;
        for (int i = 0; i < _buffers.Length; i++)
        {
            Start(i, begin);
        }

        _queue.Submit();
        for (int inFlight = _buffers.Length; inFlight > 0;)
        {
            int count = Collect();
            long now = Stopwatch.GetTimestamp();
            bool isEnded = measured != 0 && Stopwatch.GetElapsedTime(measured, now) >= duration;
            if (measured == 0 && Stopwatch.GetElapsedTime(begin, now) >= warmUp)
            {
                measured = now;
                Latency.Clear();
                Sleeps = 0;
            }

            for (int i = 0; i < count; i++)
            {
                int slot = _finished[i].Id;
                Errors += _finished[i].Status == 0 ? 0 : 1;
                if (isEnded)
                {
                    inFlight--;
                    continue;
                }

                Latency.Record((long)Stopwatch.GetElapsedTime(_started[slot], now).TotalNanoseconds);
                Start(slot, now);
            }

            if (isEnded && Elapsed == default)
            {
                Elapsed = Stopwatch.GetElapsedTime(measured, now);
            }

            _queue.Submit();
        }
    }

    public void Dispose() => _epoll.Dispose();

    private int Collect()
    {
        long since = Environment.TickCount64;
        while (true)
        {
            int count = _queue.Collect(_finished);
            if (count > 0)
            {
                return count;
            }

            if (!_polls)
            {
                Sleeps++;
                _ = _epoll.Wait(_tags, 100);
            }
            else
            {
                Thread.SpinWait(1);
            }

            if (Environment.TickCount64 - since > StallMs)
            {
                throw new IOException("the controller completes nothing any more");
            }
        }
    }

    private void Start(int slot, long now)
    {
        _started[slot] = now;
        if (!_queue.TryRead((ushort)slot, 1, _random.Below(_places) * _blocksEach, _blocksEach, _buffers[slot]))
        {
            throw new IOException("the queue is full");
        }
    }
}

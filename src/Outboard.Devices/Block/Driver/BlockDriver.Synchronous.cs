// The convenient half of the driver: one request at a time, waited for. For tests and small programs.
using System.Diagnostics;
using System.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block.Driver;

public sealed partial class BlockDriver
{
    /// <summary>Longest wait of a synchronous method.</summary>
    public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Reads from a byte offset, in as many requests as it takes.</summary>
    /// <param name="offset">A multiple of 512.</param>
    /// <param name="destination">Its length is a multiple of 512.</param>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public void Read(ulong offset, Span<byte> destination)
    {
        for (int done = 0; done < destination.Length;)
        {
            int part = (int)Math.Min(DataBytes, (uint)(destination.Length - done));
            Finish(TryRead(SlotCount, SectorOf(offset + (uint)done), (uint)part), "read", offset + (uint)done);
            Data(SlotCount)[..part].CopyTo(destination[done..]);
            done += part;
        }
    }

    /// <summary>Writes at a byte offset, in as many requests as it takes.</summary>
    /// <param name="offset">A multiple of 512.</param>
    /// <param name="source">Its length is a multiple of 512.</param>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public void Write(ulong offset, ReadOnlySpan<byte> source)
    {
        for (int done = 0; done < source.Length;)
        {
            int part = (int)Math.Min(DataBytes, (uint)(source.Length - done));
            source.Slice(done, part).CopyTo(Data(SlotCount));
            Finish(TryWrite(SlotCount, SectorOf(offset + (uint)done), (uint)part), "write", offset + (uint)done);
            done += part;
        }
    }

    /// <summary>Flushes.</summary>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public void Flush() => Finish(TryFlush(SlotCount), "flush", 0);

    /// <summary>Discards a range given in bytes.</summary>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public void Discard(ulong offset, uint bytes) =>
        Finish(TryDiscard(SlotCount, SectorOf(offset), bytes / BlockConfig.SectorBytes), "discard", offset);

    /// <summary>Writes zeroes to a range given in bytes.</summary>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public void WriteZeroes(ulong offset, uint bytes, bool mayUnmap = false) =>
        Finish(
            TryWriteZeroes(SlotCount, SectorOf(offset), bytes / BlockConfig.SectorBytes, mayUnmap),
            "write zeroes",
            offset);

    /// <summary>Asks for the device's identity string.</summary>
    /// <exception cref="BlockRequestException">The device refused or failed.</exception>
    public string GetId()
    {
        Finish(TryGetId(SlotCount), "get id", 0);
        return Encoding.ASCII.GetString(Identity(SlotCount)).TrimEnd('\0');
    }

    private static ulong SectorOf(ulong offset) => offset % BlockConfig.SectorBytes == 0
        ? offset / BlockConfig.SectorBytes
        : throw new ArgumentException($"offset {offset} is no multiple of {BlockConfig.SectorBytes}", nameof(offset));

    private void Finish(bool added, string what, ulong offset)
    {
        if (!added || InFlight != 1)
        {
            throw new InvalidOperationException("the synchronous methods need the queue for themselves");
        }

        Submit();
        long start = Stopwatch.GetTimestamp();
        Span<BlockCompletion> completion = stackalloc BlockCompletion[1];
        while (Collect(completion) == 0)
        {
            TimeSpan left = Timeout - Stopwatch.GetElapsedTime(start);
            if (left <= TimeSpan.Zero)
            {
                throw new TimeoutException($"{what} at offset {offset}: no answer within {Timeout}");
            }

            _queue.WaitForUsed((int)Math.Ceiling(left.TotalMilliseconds));
        }

        BlockStatus status = completion[0].Status;
        if (status != BlockStatus.Ok)
        {
            throw new BlockRequestException(status, $"{what} at offset {offset}: the device answered {status}");
        }
    }
}

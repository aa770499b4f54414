// What stands for the descriptors of a message where there are none: parts of the device's shared memory regions,
// doorbells, kicks. Made by the channel as the message arrives.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>Something that came with a message. What was not asked for costs nothing.</summary>
internal sealed class ResolvedAttachment : Attachment
{
    internal Func<SharedMemory>? Memory { get; init; }

    internal Func<Notifier>? Notifier { get; init; }

    internal Func<VhostUserChannel>? Channel { get; init; }

    public override SharedMemory ToSharedMemory() => (Memory ?? throw Unfit("shared memory"))();

    public override Notifier ToNotifier() => (Notifier ?? throw Unfit("a notifier"))();

    public override VhostUserChannel ToChannel() => (Channel ?? throw Unfit("a channel"))();

    public override StateStream ToStateStream() => throw Unfit("a stream");

    public override DisplayConnection ToDisplay() => throw Unfit("a display");

    public override void Dispose()
    {
    }

    private static IOException Unfit(string what) => new($"what came with the message is not {what}");
}

/// <summary>A part of a region: offsets count from its beginning. Disposing closes the region.</summary>
internal sealed class WindowSlice(SharedMemory window, ulong start, ulong sizeBytes) : SharedMemory
{
    public override ulong SizeBytes => sizeBytes;

    public override FileIdentity Identity => window.Identity;

    public override MemoryMapping Map(ulong offset, ulong length, bool writable = true) =>
        length > sizeBytes || offset > sizeBytes - length
            ? throw new IOException($"0x{length:x} bytes at 0x{offset:x} leave 0x{sizeBytes:x}")
            : window.Map(start + offset, length, writable);

    public override void Dispose() => window.Dispose();
}

/// <summary>Call, error or log of a front-end: a doorbell of the device.</summary>
internal sealed class DoorbellNotifier(DriverAccess access, int notification) : Notifier
{
    public override FileDescriptor? Waitable => null;

    public override void Signal() => access.Ring(notification);

    public override void Dispose()
    {
    }
}

/// <summary>Kicks that come by an interrupt which means anything: each interrupt is a kick of every ring.</summary>
internal sealed class SharedKicks
{
    private readonly Lock _lock = new();
    private readonly List<SharedKick> _kicks = [];

    internal Notifier Add()
    {
        SharedKick kick = new(this);
        lock (_lock)
        {
            _kicks.Add(kick);
        }

        return kick;
    }

    /// <summary>Kicks every ring; one without requests finds none.</summary>
    internal void SignalAll()
    {
        lock (_lock)
        {
            foreach (SharedKick kick in _kicks)
            {
                kick.Signal();
            }
        }
    }

    private sealed class SharedKick(SharedKicks owner) : Notifier
    {
        private readonly EventFd _event = new();

        public override FileDescriptor? Waitable => _event.Descriptor;

        public override void Signal() => _event.Signal();

        public override void Dispose()
        {
            lock (owner._lock)
            {
                if (owner._kicks.Remove(this))
                {
                    _event.Dispose();
                }
            }
        }
    }
}

// eventfd and edge-triggered epoll.
using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Native;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class EventTests
{
    private const int Timeout = 5000;

    [Fact]
    public void Signals_add_up_and_are_taken_once()
    {
        using EventFd event1 = new();
        Assert.Equal(0UL, event1.Take());
        Assert.True(event1.Signal());
        Assert.True(event1.Signal());
        Assert.True(event1.Signal());
        Assert.Equal(3UL, event1.Take());
        Assert.Equal(0UL, event1.Take());
    }

    [Fact]
    public void Wait_ends_by_signal_or_time()
    {
        using EventFd event1 = new();
        Assert.Equal(0UL, event1.Wait(timeoutMs: 10));
        Thread signaller = new(() =>
        {
            Thread.Sleep(20);
            event1.Signal();
        });
        signaller.Start();
        Assert.Equal(1UL, event1.Wait(Timeout));
        signaller.Join();
    }

    [Fact]
    public void A_peers_blocking_flag_stays_and_nothing_blocks()
    {
        using EventFd event1 = new(new FileDescriptor(Libc.eventfd(0, 0)));
        Assert.False(OpenDescriptors.IsNonBlocking(event1.Descriptor));
        Assert.Equal(0UL, event1.Take());
        Assert.True(event1.Signal());
        Assert.Equal(1UL, event1.Take());
        Assert.False(OpenDescriptors.IsNonBlocking(event1.Descriptor));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(Libc.EFD_NONBLOCK)]
    public void A_full_counter_wakes_and_does_not_block(int flags)
    {
        using EventFd event1 = new(new FileDescriptor(Libc.eventfd(0, flags)));
        using (FileDescriptor copy = event1.Descriptor.Duplicate())
        using (SafeFileHandle handle = new(copy.Release(), ownsHandle: true))
        using (FileStream stream = new(handle, FileAccess.Write, 0))
        {
            byte[] almost = new byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(almost, ulong.MaxValue - 1);
            stream.Write(almost);
        }

        using Epoll epoll = new();
        epoll.Add(event1.Descriptor, 1);
        Assert.True(event1.Signal());
        Assert.Equal(1, epoll.Wait(new ulong[1], Timeout));
        Assert.Equal(ulong.MaxValue - 1, event1.Take());
    }

    [Fact]
    public void Signalling_what_cannot_be_written_says_so()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(0);
        using SafeFileHandle handle = File.OpenHandle(path.Path);
        using FileDescriptor file = new((int)handle.DangerousGetHandle());
        using EventFd wrong = new(file.Duplicate());
        _ = file.Release();
        Assert.False(wrong.Signal());
    }

    [Fact]
    public void One_event_for_each_signal_without_reading()
    {
        using Epoll epoll = new();
        using EventFd event1 = new();
        ulong[] tags = new ulong[4];
        epoll.Add(event1.Descriptor, 0xFFFF_FFFF_0000_0001);
        Assert.Equal(0, epoll.Wait(tags, 0));
        for (int i = 0; i < 3; i++)
        {
            Assert.True(event1.Signal());
            Assert.Equal(1, epoll.Wait(tags, Timeout));
            Assert.Equal(0xFFFF_FFFF_0000_0001, tags[0]);
            Assert.Equal(0, epoll.Wait(tags, 0));
        }

        Assert.True(event1.Signal());
        Assert.True(event1.Signal());
        Assert.Equal(1, epoll.Wait(tags, Timeout));
        Assert.Equal(0, epoll.Wait(tags, 0));
    }

    [Fact]
    public void What_is_readable_when_added_is_reported_once()
    {
        using Epoll epoll = new();
        using EventFd event1 = new();
        Assert.True(event1.Signal());
        epoll.Add(event1.Descriptor, 5);
        ulong[] tags = new ulong[1];
        Assert.Equal(1, epoll.Wait(tags, Timeout));
        Assert.Equal(0, epoll.Wait(tags, 0));
    }

    [Fact]
    public void More_events_than_fit_come_with_the_next_wait()
    {
        const int count = 100;
        using Epoll epoll = new();
        EventFd[] events = [.. Enumerable.Range(0, count).Select(_ => new EventFd())];
        for (int i = 0; i < count; i++)
        {
            epoll.Add(events[i].Descriptor, (ulong)i);
            Assert.True(events[i].Signal());
        }

        HashSet<ulong> seen = [];
        ulong[] tags = new ulong[7];
        int got;
        while ((got = epoll.Wait(tags, 0)) > 0)
        {
            seen.UnionWith(tags.Take(got));
        }

        Assert.Equal(count, seen.Count);
        Array.ForEach(events, item => item.Dispose());
    }

    [Fact]
    public void What_is_removed_is_silent()
    {
        using Epoll epoll = new();
        using EventFd event1 = new();
        epoll.Add(event1.Descriptor, 1);
        Assert.Throws<LinuxException>(() => epoll.Add(event1.Descriptor, 1));
        Assert.True(event1.Signal());
        epoll.Remove(event1.Descriptor);
        Assert.Equal(0, epoll.Wait(new ulong[1], 0));
        LinuxException error = Assert.Throws<LinuxException>(() => epoll.Remove(event1.Descriptor));
        Assert.Equal(Errno.NoEntry, error.Errno);
    }

    [Fact]
    public void A_regular_file_cannot_be_watched()
    {
        using Epoll epoll = new();
        using FileDescriptor file = MemFd.Create("file", 4096);
        LinuxException error = Assert.Throws<LinuxException>(() => epoll.Add(file, 1));
        Assert.Equal(Errno.NotPermitted, error.Errno);
    }
}

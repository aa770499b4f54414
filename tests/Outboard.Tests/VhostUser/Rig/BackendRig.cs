// A back-end in this process, on a real socket path, and whatever a test connects to it. Disposed, nothing may be left.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

/// <summary>Serves a <see cref="FakeDevice"/>.</summary>
internal sealed class BackendRig : IAsyncDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly CancellationTokenSource _end = new();
    private readonly Stack<IDisposable> _owned = new();
    private readonly Task _serving;

    /// <summary>Starts to serve.</summary>
    /// <param name="configure">Changes the options; one worker serves all queues unless it says otherwise.</param>
    /// <param name="device">The device; a plain one when it is null.</param>
    public BackendRig(
        Func<VhostUserBackendOptions, VhostUserBackendOptions>? configure = null, FakeDevice? device = null)
    {
        Device = device ?? new FakeDevice();
        VhostUserBackendOptions options = new() { Logger = Log, WorkerCount = 1 };
        SocketPath = Path.Combine(_folder.FullName, "device.sock");
        UnixListener listener = UnixListener.Bind(SocketPath);
        _serving = ServeAsync(listener, configure?.Invoke(options) ?? options);
    }

    public FakeDevice Device { get; }

    public LogRecorder Log { get; } = new();

    public string SocketPath { get; }

    /// <summary>Whether the server has ended, which it never does by itself.</summary>
    public bool HasEnded => _serving.IsCompleted;

    /// <summary>Keeps something for the end of the test.</summary>
    public T Own<T>(T thing)
        where T : IDisposable
    {
        _owned.Push(thing);
        return thing;
    }

    public async Task<WirePeer> ConnectAsync() =>
        Own(new WirePeer(await UnixSocket.ConnectAsync(SocketPath, TestContext.Current.CancellationToken)));

    public Task<VhostUserFrontend> ConnectFrontendAsync(VhostUserFrontendOptions? options = null) =>
        VhostUserFrontend.ConnectAsync(SocketPath, options, TestContext.Current.CancellationToken);

    public DriverMemory Memory(ulong sizeBytes = 1 << 16, ulong guestAddress = 0x1_0000_0000) =>
        Own(new DriverMemory(sizeBytes, guestAddress));

    public EventFd Event() => Own(new EventFd());

    /// <summary>A descriptor of shared memory.</summary>
    public FileDescriptor MemoryFile(ulong sizeBytes = 4096) => Own(MemFd.Create("outboard-test", sizeBytes));

    /// <summary>A connected UNIX socket, and its other end.</summary>
    public (FileDescriptor Passed, WirePeer Kept) SocketPair()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair();
        using (first)
        {
            return (Own(first.DuplicateDescriptor()), Own(new WirePeer(second)));
        }
    }

    /// <summary>The server is alive: it takes the next connection and answers it.</summary>
    public async Task ExpectServesNextAsync()
    {
        using WirePeer next = await ConnectAsync();
        await next.ExpectServedAsync();
    }

    /// <summary>Asks the server to end, and waits for it.</summary>
    public async Task EndAsync()
    {
        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
    }

    public async ValueTask DisposeAsync()
    {
        bool ended = _serving.IsCompleted && !_end.IsCancellationRequested;
        while (_owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }

        Device.Holds = false;
        Device.CompleteHeld();
        await EndAsync();
        _end.Dispose();
        _folder.Delete(recursive: true);
        Assert.False(ended, "the server ended before it was asked to");
    }

    private async Task ServeAsync(UnixListener listener, VhostUserBackendOptions options)
    {
        using (listener)
        {
            await VhostUserBackend.ServeAsync(Device, listener, options, _end.Token);
        }
    }
}

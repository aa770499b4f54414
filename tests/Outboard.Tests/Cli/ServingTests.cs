// A running back-end: sockets in all the ways they come, front-ends one after another, signals.
using System.Diagnostics;
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Sockets;
using Outboard.Linux.Threads;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class ServingTests : IDisposable
{
    private const long SizeBytes = 1 << 20;
    private const string Size = "--null-size=1M";

    /// <summary>How soon the program must end, which is 1 s; the rest is for a loaded machine. What would hold it up
    /// takes a minute, or for ever.</summary>
    private static readonly TimeSpan s_endLimit = TimeSpan.FromSeconds(1 + 19);

    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string SocketPath => _folder["s"];

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("TERM")]
    [InlineData("INT")]
    public async Task A_signal_ends_it_cleanly(string signal)
    {
        await using OutboardProcess process = await StartAsync();
        await using VhostUserFrontend frontend = await ConnectAsync();
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(frontend));
        Stopwatch watch = Stopwatch.StartNew();
        process.Signal(signal);
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, s_endLimit);
        Assert.False(File.Exists(SocketPath));
    }

    [Fact]
    public async Task A_front_end_that_stops_within_a_message_does_not_hold_it()
    {
        await using OutboardProcess process = await StartAsync();
        using Socket half = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        half.Connect(new UnixDomainSocketEndPoint(SocketPath));
        half.Send([1, 0, 0]);
        await Task.Delay(100, Token);
        Stopwatch watch = Stopwatch.StartNew();
        process.Signal("TERM");
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, s_endLimit);
    }

    [Fact]
    public async Task Requests_that_do_not_complete_do_not_hold_it()
    {
        await using OutboardProcess process = await StartAsync("--fault-delay=60000");
        await using VhostUserFrontend frontend = await ConnectAsync();
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, cancellation: Token);
        BlockFrontend.SubmitRead(queue, memory);
        await BlockFrontend.IdentifyAsync(queue, memory);

        Stopwatch watch = Stopwatch.StartNew();
        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, s_endLimit);
        Assert.Equal(1, outcome.ExitCode);
        Assert.Contains("in flight", outcome.Errors, StringComparison.Ordinal);
        Assert.False(File.Exists(SocketPath));
    }

    [Fact]
    public async Task Threads_stay_on_the_processors_that_they_are_given_and_may_poll_without_end()
    {
        int last = ThreadPlacement.AvailableCpus[^1];
        await using OutboardProcess process = await StartAsync(
            $"--cpu={last}", "--busy-poll", "--num-queues=2", "--threads=2");
        await using VhostUserFrontend frontend = await ConnectAsync();
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue one = await frontend.StartQueueAsync(0, 16, memory, cancellation: Token);
        using FrontendQueue two = await frontend.StartQueueAsync(1, 16, memory, cancellation: Token);
        foreach (FrontendQueue queue in new[] { one, two })
        {
            BlockFrontend.SubmitRead(queue, memory);
            uint token;
            while (!queue.Ring.TryCollect(out token, out _))
            {
                Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds), "no answer");
            }

            Assert.Equal(1u, token);
        }

        Assert.Equal([$"{last}", $"{last}"], process.ProcessorsOfThreads("Block/"));
        process.Signal("TERM");
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
    }

    [Fact]
    public async Task A_second_front_end_is_served_after_the_first()
    {
        await using OutboardProcess process = await StartAsync();
        VhostUserFrontend first = await ConnectAsync();
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(first));
        Task<long> second = BlockFrontend.SizeBytesAsync(SocketPath);
        await first.DisposeAsync();
        Assert.Equal(SizeBytes, await second.WaitAsync(OutboardProcess.Limit, Token));
    }

    [Fact]
    public async Task A_front_end_that_talks_nonsense_ends_only_its_connection()
    {
        await using OutboardProcess process = await StartAsync();
        using (Socket wild = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            wild.Connect(new UnixDomainSocketEndPoint(SocketPath));
            wild.Send(Enumerable.Repeat((byte)0xFF, 64).ToArray());
        }

        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(SocketPath));
    }

    [Fact]
    public async Task The_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not()
    {
        await using OutboardProcess dead = await StartAsync();
        dead.Signal("KILL");
        await dead.EndAsync();
        Assert.True(File.Exists(SocketPath));

        await using OutboardProcess living = await StartAsync();
        Outcome third = await OutboardProcess.RunAsync("block", Size, $"--socket-path={SocketPath}");
        third.AssertFailed(1, $"--socket-path={SocketPath}", "another process listens");
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(SocketPath));
    }

    [Fact]
    public async Task A_file_has_one_writer_or_many_readers()
    {
        string file = _folder.WriteZeroes("disk", SizeBytes);
        await using OutboardProcess writer = OutboardProcess.Start(
            "block", $"--blk-file={file}", $"--socket-path={SocketPath}");
        await writer.ListensAsync(SocketPath);
        string other = $"--socket-path={_folder["t"]}";
        (await OutboardProcess.RunAsync("block", $"--blk-file={file}", other))
            .AssertFailed(1, $"--blk-file={file}", "in use by another process");
        (await OutboardProcess.RunAsync("block", $"--blk-file={file}", "--read-only", other))
            .AssertFailed(1, $"--blk-file={file}", "in use by another process");
        writer.Signal("TERM");
        Assert.Equal(0, (await writer.EndAsync()).ExitCode);

        await using OutboardProcess reader = OutboardProcess.Start(
            "block", $"--blk-file={file}", "--read-only", $"--socket-path={SocketPath}");
        await reader.ListensAsync(SocketPath);
        await using OutboardProcess second = OutboardProcess.Start("block", $"--blk-file={file}", "--read-only", other);
        await second.ListensAsync(_folder["t"]);
    }

    [Fact]
    public async Task The_lock_of_a_process_that_was_just_killed_is_waited_for()
    {
        string file = _folder.WriteZeroes("disk", SizeBytes);
        using BlockFile holder = BlockFile.Open(file);
        Assert.True(holder.TryLock(exclusive: true));
        await using OutboardProcess process = OutboardProcess.Start(
            "block", $"--blk-file={file}", $"--socket-path={SocketPath}");
        await Task.Delay(300, Token);
        holder.Dispose();
        await process.ListensAsync(SocketPath);
    }

    [Fact]
    public async Task An_inherited_connection_is_served_until_it_ends()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        await using OutboardProcess process = StartWith(theirs.DuplicateDescriptor(), ByNumber);
        theirs.Dispose();
        await using (VhostUserFrontend frontend = new(new SocketChannel(ours)))
        {
            await frontend.NegotiateAsync(Token);
            Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(frontend));
        }

        Assert.Equal(0, (await process.EndAsync()).ExitCode);
    }

    [Fact]
    public async Task An_inherited_listener_is_served_until_a_signal()
    {
        using Socket listener = Listen();
        await using OutboardProcess process = StartWith(Duplicate(listener), ByNumber);
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(SocketPath));
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(SocketPath));
        process.Signal("TERM");
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
        Assert.True(File.Exists(SocketPath), "the socket file belongs to whoever made it");
    }

    [Fact]
    public async Task Socket_activation_passes_the_third_descriptor()
    {
        using Socket listener = Listen();
        await using OutboardProcess process = StartWith(Duplicate(listener), number => Activated("$$", "1", number));
        Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(SocketPath));
    }

    [Theory]
    [InlineData("1", "1", "--socket-path=PATH")]
    [InlineData("$$", "2", "LISTEN_FDS=2")]
    public async Task Socket_activation_is_for_this_process_and_of_one_socket(string process, string count, string word)
    {
        using Socket listener = Listen();
        await using OutboardProcess started = StartWith(
            Duplicate(listener), number => Activated(process, count, number));
        (await started.EndAsync()).AssertFailed(2, word);
    }

    [Fact]
    public async Task What_is_no_unix_stream_socket_is_refused()
    {
        using FileStream file = File.Create(_folder["file"]);
        await Refused(Duplicate(file.SafeFileHandle.DangerousGetHandle()), "no socket");
        using Socket datagrams = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        await Refused(Duplicate(datagrams), "another kind of socket");
        using Socket internet = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await Refused(Duplicate(internet), "another kind of socket");

        static async Task Refused(FileDescriptor descriptor, string word)
        {
            await using OutboardProcess process = StartWith(descriptor, ByNumber);
            (await process.EndAsync()).AssertFailed(2, "--fd=", word, "pass a UNIX stream socket");
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_resized_file_is_noticed(bool watched)
    {
        string file = _folder.WriteZeroes("disk", SizeBytes);
        string[] options = watched ? ["--watch-size"] : [];
        await using OutboardProcess process = OutboardProcess.Start(
            ["block", $"--blk-file={file}", $"--socket-path={SocketPath}", .. options]);
        await process.ListensAsync(SocketPath);
        await using VhostUserFrontend frontend = await ConnectAsync();
        TaskCompletionSource changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        frontend.ConfigChanged += changed.SetResult;
        using (FileStream stream = new(file, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            stream.SetLength(2 * SizeBytes);
        }

        if (!watched)
        {
            Assert.Equal(SizeBytes, await BlockFrontend.SizeBytesAsync(frontend));
            process.Signal("HUP");
        }

        await changed.Task.WaitAsync(OutboardProcess.Limit, Token);
        Assert.Equal(2 * SizeBytes, await BlockFrontend.SizeBytesAsync(frontend));
        process.Signal("TERM");
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
    }

    [Fact]
    public async Task Every_option_has_its_effect()
    {
        const ulong readOnly = 1 << 5;
        await using OutboardProcess process = await StartAsync(
            "--read-only", "--num-queues=3", "--queue-size=64", "--block-size=4096", "--serial=abc", "--threads=2",
            "--poll-us=0", "--io=threads", "--no-write-cache", "--quiet");
        await using (VhostUserFrontend frontend = await ConnectAsync())
        {
            Assert.Equal(3, frontend.QueueCount);
            Assert.Equal(readOnly, frontend.OfferedFeatures & readOnly);
            byte[] config = await frontend.GetConfigAsync(0, 36, Token);
            Assert.Equal(4096u, BitConverter.ToUInt32(config, 20));
            Assert.Equal(0, config[32]);
        }

        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.Equal(new Outcome(0, string.Empty, string.Empty), outcome);
    }

    private Task<VhostUserFrontend> ConnectAsync() => VhostUserFrontend.ConnectAsync(SocketPath, cancellation: Token);

    private async Task<OutboardProcess> StartAsync(params string[] options)
    {
        OutboardProcess process = OutboardProcess.Start(["block", Size, $"--socket-path={SocketPath}", .. options]);
        await process.ListensAsync(SocketPath);
        return process;
    }

    /// <summary>Starts the program with a descriptor that it inherits, and that is then closed here.</summary>
    private static OutboardProcess StartWith(FileDescriptor descriptor, Func<int, string[]> arguments)
    {
        using (descriptor)
        {
            descriptor.SetInheritable(true);
            string[] all = arguments(descriptor.Number);
            return all[0] == "/bin/bash" ? OutboardProcess.StartProgram(all[0], all[1..]) : OutboardProcess.Start(all);
        }
    }

    private static string[] Activated(string process, string count, int number) =>
    [
        "/bin/bash",
        "-c",
        $"LISTEN_PID={process} LISTEN_FDS={count} exec {OutboardProcess.Program} block {Size} 3<&{number}",
    ];

    private static string[] ByNumber(int number) => ["block", Size, $"--fd={number}"];

    private static FileDescriptor Duplicate(Socket socket) => Duplicate(socket.Handle);

    private static FileDescriptor Duplicate(nint handle)
    {
        using FileDescriptor descriptor = new((int)handle);
        FileDescriptor copy = descriptor.Duplicate();
        descriptor.SetHandleAsInvalid();
        return copy;
    }

    private Socket Listen()
    {
        Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(SocketPath));
        listener.Listen();
        return listener;
    }
}

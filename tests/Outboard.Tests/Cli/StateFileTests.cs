// The program keeps a device's state in a file: killed under load and started again, it goes on with it; two programs
// do not share it, and another device's file is refused in one line.
using System.Globalization;
using System.Text;
using Outboard.Devices.Register;
using Outboard.JournalKills;
using Outboard.Linux.Files;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class StateFileTests : IDisposable
{
    private const int Kills = 4;
    private const int RingSize = 32;

    private readonly TemporaryFolder _folder = new();
    private readonly DriverMemory _memory = new(1 << 20);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Socket => _folder["socket"];

    private string State => _folder["state"];

    public void Dispose()
    {
        _memory.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("counter", false, true, false)]
    [InlineData("register", true, true, false)]
    [InlineData("register", false, false, false)]
    [InlineData("counter", false, true, true)]
    [InlineData("register", true, true, true)]
    public async Task Each_request_takes_effect_once_however_often_the_program_is_killed(
        string device, bool packed, bool tracked, bool deferred)
    {
        Random random = new(5);
        KillShape shape = new(packed, tracked, device == "register", RingSize, IsDeferred: deferred);
        string[] options = deferred ? ["--completion-delay=2"] : [];
        OutboardProcess process = Start(device, options);
        using ChannelSource source = ChannelSource.Connect(
            Socket, new BackOff(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(20)));
        await using ReconnectingFrontend frontend = await ReconnectingFrontend.ConnectAsync(
            source,
            new VhostUserFrontendOptions { UsePacked = packed },
            new ReconnectOptions { Limit = OutboardProcess.Limit, TrackInflight = tracked },
            Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        FrontendQueue queue = (await frontend.StartQueuesAsync(1, RingSize, _memory, Token))[0];
        Assert.Equal(tracked, frontend.TracksInflight);
        ModelDriver driver = new(shape, _memory, seed: 3, queue.Ring);
        for (int kill = 0; kill < Kills; kill++)
        {
            Load(driver, queue, driver.Completed + random.Next(1, 400));
            Task lost = frontend.Lost;
            await process.DisposeAsync();
            await lost.WaitAsync(OutboardProcess.Limit, Token);
            _ = driver.Collect();
            process = Start(device, options);
            await frontend.ReconnectAsync(Token);
        }

        Load(driver, queue, driver.Completed + 100);
        while (driver.InFlight > 0)
        {
            Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds));
            _ = driver.Collect();
        }

        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.Equal(0, outcome.ExitCode);
        Assert.Contains($"owner number {Kills + 1}", outcome.Errors, StringComparison.Ordinal);
        await process.DisposeAsync();
        using DeviceJournal journal = DeviceJournal.Open(
            State, shape.IsRegister ? RegisterDevice.Layout : CounterDevice.Layout);
        Assert.Equal(driver.Value, journal.Lane(0).Read(0));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_console_log_has_each_byte_once_however_often_the_program_is_killed(bool packed)
    {
        Random random = new(9);
        string log = _folder["log"];
        string[] arguments =
            ["console", $"--socket-path={Socket}", $"--state-file={State}", $"--log={log}", "--quiet"];
        OutboardProcess process = OutboardProcess.Start(arguments);
        using ChannelSource source = ChannelSource.Connect(
            Socket, new BackOff(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(20)));
        await using ReconnectingFrontend frontend = await ReconnectingFrontend.ConnectAsync(
            source,
            new VhostUserFrontendOptions { UsePacked = packed },
            new ReconnectOptions { Limit = OutboardProcess.Limit },
            Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        FrontendQueue queue = (await frontend.StartQueuesAsync(2, RingSize, _memory, Token))[1];
        LineWriter writer = new(queue, _memory);
        for (int kill = 0; kill < Kills; kill++)
        {
            writer.WriteUntil(writer.Completed + (uint)random.Next(1, 300));
            Task lost = frontend.Lost;
            await process.DisposeAsync();
            await lost.WaitAsync(OutboardProcess.Limit, Token);
            process = OutboardProcess.Start(arguments);
            await frontend.ReconnectAsync(Token);
        }

        writer.Finish();
        process.Signal("TERM");
        Assert.Equal(new Outcome(0, string.Empty, string.Empty), await process.EndAsync());
        await process.DisposeAsync();
        Assert.Equal(writer.Text, await File.ReadAllTextAsync(log, Token));
    }

    [Fact]
    public async Task State_of_another_device_or_of_another_program_is_refused()
    {
        await using (OutboardProcess counter = Start("counter"))
        {
            await counter.ListensAsync(Socket);
            Outcome second = await OutboardProcess.RunAsync(
                "counter", $"--socket-path={_folder["other"]}", $"--state-file={State}");
            second.AssertFailed(1, $"--state-file={State}", "in use by another process");
        }

        Outcome other = await OutboardProcess.RunAsync(
            "register", $"--socket-path={_folder["other"]}", $"--state-file={State}");
        other.AssertFailed(1, $"--state-file={State}", "made for another device");
        string text = _folder.Write("text", "not a state");
        Outcome foreign = await OutboardProcess.RunAsync(
            "counter", $"--socket-path={_folder["other"]}", $"--state-file={text}");
        foreign.AssertFailed(1, text, "not a state file");
        Assert.Equal("not a state", await File.ReadAllTextAsync(text, Token));
    }

    [Fact]
    public async Task State_may_lie_in_an_inherited_file()
    {
        // As a supervisor does it that keeps a memfd open over its back-ends' lives.
        string shell = string.Create(
            CultureInfo.InvariantCulture,
            $"exec 7<>'{State}'; exec '{OutboardProcess.Program}' counter --socket-path='{Socket}' --state-fd=7");
        await using OutboardProcess process = OutboardProcess.StartProgram("/bin/sh", ["-c", shell]);
        await process.ListensAsync(Socket);
        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.Equal(0, outcome.ExitCode);
        Assert.Contains("descriptor 7", outcome.Errors, StringComparison.Ordinal);
        using DeviceJournal journal = DeviceJournal.Open(OwnedFile.Open(State), CounterDevice.Layout);
        Assert.Equal(2u, journal.Owners);
    }

    private OutboardProcess Start(string device, params string[] options) =>
        OutboardProcess.Start([device, $"--socket-path={Socket}", $"--state-file={State}", .. options]);

    private static void Load(ModelDriver driver, FrontendQueue queue, long until)
    {
        while (driver.Completed < until)
        {
            driver.Add(RingSize);
            queue.Submit();
            Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds), "no answer");
            _ = driver.Collect();
        }
    }

    /// <summary>Writes lines of many lengths, many at a time.</summary>
    private sealed class LineWriter(FrontendQueue queue, DriverMemory memory)
    {
        private const int SlotBytes = 128;

        private readonly StringBuilder _text = new();
        private readonly DriverBuffer _pool = memory.Allocate(RingSize * SlotBytes);
        private uint _next;

        public uint Completed { get; private set; }

        /// <summary>All that was written.</summary>
        public string Text => _text.ToString();

        public void WriteUntil(uint completed)
        {
            while (Completed < completed)
            {
                while (_next - Completed < RingSize)
                {
                    string line = $"{_next}:{new string('.', (int)(_next * 7 % 100))}\n";
                    _text.Append(line);
                    DriverBuffer slot = _pool.Slice(_next % RingSize * SlotBytes, (uint)line.Length);
                    Encoding.ASCII.GetBytes(line, slot.Span);
                    Assert.True(queue.Ring.TryAdd([slot], [], _next++));
                }

                queue.Submit();
                Collect();
            }
        }

        public void Finish()
        {
            while (Completed < _next)
            {
                Collect();
            }
        }

        private void Collect()
        {
            Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds), "no answer");
            while (queue.Ring.TryCollect(out uint token, out _))
            {
                Assert.Equal(Completed++, token);
            }
        }
    }
}

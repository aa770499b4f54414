// GuestVm.cs - boots a Linux test machine under stock QEMU, runs a script in it and reports how that ended.
// The machine is emulated (TCG): it needs no virtualization support and behaves the same everywhere. The script
// travels in a cpio archive behind the initial file system; the serial console, which is QEMU's standard output,
// tells the rest.
using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Outboard.InteropTests.Lab;

internal sealed partial class GuestVm : IAsyncDisposable
{
    private const string KernelArguments =
        "console=ttyS0 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check random.trust_cpu=on " +
        "cryptomgr.notests audit=0 quiet";

    private static readonly TimeSpan s_powerOffLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_socketLimit = TimeSpan.FromSeconds(60);

    private readonly GuestOptions _options;
    private readonly TempFolder _folder;
    private readonly PeerProcess _qemu;
    private readonly Stopwatch _watch = Stopwatch.StartNew();
    private QmpClient? _qmp;

    private GuestVm(GuestOptions options, TempFolder folder, PeerProcess qemu)
    {
        _options = options;
        _folder = folder;
        _qemu = qemu;
    }

    /// <summary>What the machine writes to its console.</summary>
    public OutputLog Serial => _qemu.Output;

    /// <summary>The QEMU process.</summary>
    public PeerProcess Process => _qemu;

    private TimeSpan Remaining
    {
        get
        {
            TimeSpan remaining = _options.TimeLimit - _watch.Elapsed;
            return remaining > TimeSpan.Zero ? remaining : TimeSpan.Zero;
        }
    }

    /// <summary>Boots a machine, waits for its end and tells how it ended.</summary>
    public static async Task<GuestOutcome> RunAsync(GuestOptions options)
    {
        await using GuestVm guest = await StartAsync(options);
        return await guest.FinishAsync();
    }

    /// <summary>Boots a machine that the test goes on talking to.</summary>
    public static async Task<GuestVm> StartAsync(GuestOptions options)
    {
        Peers peers = await Peers.ReadyAsync();
        TempFolder folder = new();
        try
        {
            string initialFiles = folder.Combine("initrd.cpio");
            File.Copy(Path.Combine(peers.GuestFolder, "initrd.cpio"), initialFiles);
            AppendTestFiles(options, initialFiles);
            string kernel = Path.Combine(peers.GuestFolder, "vmlinux");
            List<string> arguments = BuildArguments(options, kernel, initialFiles, QmpPath(folder));
            return new GuestVm(options, folder, await PeerProcess.StartPeerAsync("qemu-system-x86_64", arguments));
        }
        catch
        {
            folder.Dispose();
            throw;
        }
    }

    /// <summary>Waits until the console shows a pattern; <paramref name="start"/> is a position in its text.</summary>
    public async Task<Match> WaitForAsync(Regex pattern, int start = 0)
    {
        Match? match = await Serial.FindAsync(pattern, Remaining, start);
        return match ?? throw new LabException($"the guest never wrote '{pattern}'. {_qemu.Describe()}");
    }

    /// <summary>Waits until the console shows a line that is exactly this text.</summary>
    public Task<Match> WaitForLineAsync(string line, int start = 0) =>
        WaitForAsync(new Regex($"^{Regex.Escape(line)}$", RegexOptions.Multiline), start);

    /// <summary>Types text into the console.</summary>
    public async Task SendAsync(string text)
    {
        await _qemu.Input.WriteAsync(text);
        await _qemu.Input.FlushAsync();
    }

    /// <summary>Runs a QMP command; needs <see cref="GuestOptions.OffersQmp"/>.</summary>
    public async Task<JsonNode> QmpAsync(string command, JsonObject? arguments = null) =>
        await (await ConnectQmpAsync()).ExecuteAsync(command, arguments);

    /// <summary>The connection behind <see cref="QmpAsync"/>, for its events.</summary>
    public async Task<QmpClient> ConnectQmpAsync()
    {
        if (_qmp is null)
        {
            await _qemu.WaitForSocketAsync(QmpPath(_folder), s_socketLimit);
            _qmp = await QmpClient.ConnectAsync(QmpPath(_folder));
        }

        return _qmp;
    }

    /// <summary>Waits for the script's exit status and for QEMU to end, within the time limit.</summary>
    public async Task<GuestOutcome> FinishAsync()
    {
        Match? match = await Serial.FindAsync(EndPattern, Remaining);
        int? status = null;
        if (match is { } found && found.Groups["status"].Success)
        {
            status = int.Parse(found.Groups["status"].ValueSpan, CultureInfo.InvariantCulture);
            await WaitForPowerOffAsync();
        }

        await _qemu.TerminateAsync();
        return new GuestOutcome(status, Serial.Text, _qemu.Errors.Text, _watch.Elapsed);
    }

    public async ValueTask DisposeAsync()
    {
        _qmp?.Dispose();
        await _qemu.DisposeAsync();
        _folder.Dispose();
    }

    // the blank behind the number says that the number has arrived in full
    [GeneratedRegex(@"^GUEST-EXIT (?<status>\d+) |Kernel panic - ", RegexOptions.Multiline)]
    private static partial Regex EndPattern { get; }

    private static string QmpPath(TempFolder folder) => folder.Combine("qmp.sock");

    private static void AppendTestFiles(GuestOptions options, string path)
    {
        StringBuilder script = new();
        foreach ((string name, string value) in options.Variables)
        {
            script.Append(CultureInfo.InvariantCulture, $"export {name}='{value}'\n");
        }

        script.Append(options.Script);
        using CpioArchive archive = CpioArchive.AppendTo(path);
        archive.AddFolder("test");
        archive.AddProgram("test/script", Encoding.UTF8.GetBytes(script.ToString()));
        foreach ((string inside, string outside) in options.Files)
        {
            archive.AddProgram(inside.TrimStart('/'), File.ReadAllBytes(outside));
        }
    }

    private static List<string> BuildArguments(
        GuestOptions options, string kernel, string initialFiles, string qmpPath)
    {
        string memory = $"{options.MemoryMegabytes}M";
        List<string> arguments =
        [
            "-nodefaults", "-no-user-config", "-display", "none",
            "-accel", "tcg,thread=multi", "-cpu", "max",
            "-m", $"{memory}{options.MemorySlots}", "-smp", $"{options.Processors}",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-kernel", kernel, "-initrd", initialFiles,
            "-append", $"{KernelArguments} {options.KernelArguments}",
        ];
        if (options.SharesMemory)
        {
            string kind = options.MemoryFile is { } file ? $"file,mem-path={file}" : "memfd";
            arguments.AddRange(["-object", $"memory-backend-{kind},id=memory,size={memory},share=on"]);
            arguments.AddRange(["-machine", $"{options.Machine},memory-backend=memory"]);
        }
        else
        {
            arguments.AddRange(["-machine", options.Machine]);
        }

        if (!options.AllowsReboot)
        {
            arguments.Add("-no-reboot");
        }

        if (options.OffersQmp)
        {
            arguments.AddRange(["-qmp", $"unix:{qmpPath},server=on,wait=off"]);
        }

        if (options.IncomingAddress is string address)
        {
            arguments.AddRange(["-incoming", address]);
        }

        arguments.AddRange(options.DeviceArguments);
        return arguments;
    }

    private async Task WaitForPowerOffAsync()
    {
        try
        {
            await _qemu.WaitForExitAsync(s_powerOffLimit);
        }
        catch (LabException)
        {
            // the script's status counts; FinishAsync ends QEMU
        }
    }
}

// "outboard counter" and "outboard register": the two devices that show what a state file is for.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Register;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;
using Outboard.Virtio.Journal;

namespace Outboard.Cli.Register;

internal static class RegisterCommand
{
    public const string CounterName = "counter";
    public const string RegisterName = "register";

    private const int LongestDelayMs = 60_000;

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command CreateCounter(string programName) => Create(
        CounterName, "a persistent counter, for tests of recovery", CounterDevice.Layout,
        static (journal, delay) => new CounterDevice(journal) { LongestDelay = delay }, programName);

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command CreateRegister(string programName) => Create(
        RegisterName, "a persistent compare-and-swap register, for tests of recovery", RegisterDevice.Layout,
        static (journal, delay) => new RegisterDevice(journal) { LongestDelay = delay }, programName);

    private static Command Create(
        string name, string what, JournalLayout layout, Func<DeviceJournal, TimeSpan, VirtioDevice> make,
        string programName)
    {
        Command command = new(
            name, $"Serve {what}: a vhost-user back-end, or a vfio-user server. Ends on SIGTERM.");
        ServingOptions serving = new();
        StateOptions state = new();
        ValueOption<int?> delay = ValueOption.Number(
            "--completion-delay", "MS",
            "Have each request take effect up to MS later, in any order. [default: 0, at once]", 0, LongestDelayMs);
        foreach (Option option in (Option[])[.. serving.Sockets, .. state.All, delay, .. serving.Last])
        {
            command.Add(option);
        }

        command.SetAction(result =>
        {
            TimeSpan longest = TimeSpan.FromMilliseconds(delay.Read(result) ?? 0);
            return Run(
                serving.Read(result), state.Read(result), layout, journal => make(journal, longest), programName);
        });
        return command;
    }

    private static int Run(
        ServingSettings serving,
        StateSettings state,
        JournalLayout layout,
        Func<DeviceJournal, VirtioDevice> make,
        string programName)
    {
        StandardErrorLog log = new(programName, serving.LogLevel);
        using EndSignals signals = new();
        if (!state.IsGiven)
        {
            throw new CommandLineException("no state: give --state-file=PATH or --state-fd=N");
        }

        using DeviceJournal journal = state.Open(layout);
        VirtioDevice device = make(journal);
        using ServedSocket socket = serving.OpenSocket();
        log.LogInformation(
            "serving the state in {State}, as its owner number {Owner}, on {Socket}",
            journal.Name, journal.Owners, socket.Name);
        VhostUserBackendOptions options = serving.ToBackendOptions(log) with { WorkerCount = 1 };
        return DeviceServer.Serve(device, socket, options, signals.Requested) ? 0 : 1;
    }
}

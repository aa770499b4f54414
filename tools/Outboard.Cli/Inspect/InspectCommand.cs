// "outboard inspect": what a vhost-user back-end (or a vfio-user server) offers. Asks what the back-end says it can
// tell, and leaves; see VhostUserFrontend.InspectAsync. Exit status 1 when nobody listens or the first questions get no
// answer.
using System.CommandLine;
using System.Net.Sockets;
using System.Text;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Inspect;

internal static class InspectCommand
{
    private const string Name = "inspect";
    private const double DefaultSeconds = 10;
    private const double MostSeconds = 3600;

    public static Command Create()
    {
        ValueOption<string> path = ValueOption.Text("--socket-path", "PATH", "Where the back-end listens.");
        ValueOption<string> vfioUserPath = ValueOption.Text(
            "--vfio-user-socket", "PATH", "Where a vfio-user server listens: print its PCI function.");
        ValueOption<VirtioDeviceId?> type = TypeOption();
        SwitchOption json = new("--json", "Print a JSON object.");
        ValueOption<double?> timeout = ValueOption.Seconds(
            "--timeout", $"Longest wait for an answer. [default: {DefaultSeconds}]", MostSeconds);
        Command command = new(
            Name,
            "Print what a vhost-user back-end offers: features, queues, configuration, memory slots. Nothing is set "
            + "up. A back-end that serves one front-end only (virtiofsd, passt --one-off) ends when this one leaves.")
        {
            path, vfioUserPath, type, json, timeout,
        };
        command.SetAction(result => (path.Read(result), vfioUserPath.Read(result)) switch
        {
            ({ } backend, null) => Run(
                backend, type.Read(result), json.Read(result), timeout.Read(result) ?? DefaultSeconds),
            (null, { } server) => RunVfioUser(server, timeout.Read(result) ?? DefaultSeconds),
            (null, null) => throw new CommandLineException(
                "no socket: give --socket-path=PATH or --vfio-user-socket=PATH"),
            _ => throw new CommandLineException(
                "--socket-path and --vfio-user-socket exclude each other: give one of them"),
        });
        return command;
    }

    /// <summary>The option that names a device's type, for those who know it.</summary>
    public static ValueOption<VirtioDeviceId?> TypeOption() => new(
        "--type", "TYPE",
        $"What device it is, for the names of its features and fields: {string.Join(", ", DeviceTypeWords.All)}, or a "
        + "number. [default: what the features suggest]",
        $"give one of {string.Join(", ", DeviceTypeWords.All)}, or a number",
        DeviceTypeWords.Parse);

    private static int Run(string path, VirtioDeviceId? type, bool json, double seconds)
    {
        using EndSignals signals = new();
        BackendOffer offer = Ask(path, type, TimeSpan.FromSeconds(seconds), signals.Requested);
        byte[] text = json ? OfferJson.Format(path, offer) : Encoding.UTF8.GetBytes(OfferText.Format(path, offer));
        using Stream output = Console.OpenStandardOutput();
        output.Write(text);
        return 0;
    }

    private static int RunVfioUser(string path, double seconds)
    {
        using EndSignals signals = new();
        string text;
        try
        {
            text = DescribeAsync(path, TimeSpan.FromSeconds(seconds), signals.Requested).GetAwaiter().GetResult();
        }
        catch (IOException error)
        {
            throw new IOException($"--vfio-user-socket={path}: {error.Message}", error);
        }
        catch (OperationCanceledException)
        {
            throw new IOException("ended by a signal before the server had answered");
        }

        using Stream output = Console.OpenStandardOutput();
        output.Write(Encoding.UTF8.GetBytes(text));
        return 0;
    }

    private static async Task<string> DescribeAsync(string path, TimeSpan limit, CancellationToken ending)
    {
        VfioUserClientOptions options = new() { AnswerLimit = limit };
        VfioUserClient client =
            await VfioUserClient.ConnectAsync(path, options, ending).ConfigureAwait(false);
        await using (client.ConfigureAwait(false))
        {
            return await FunctionText.DescribeAsync(path, client, ending).ConfigureAwait(false);
        }
    }

    private static BackendOffer Ask(string path, VirtioDeviceId? type, TimeSpan limit, CancellationToken ending)
    {
        try
        {
            VhostUserFrontendOptions options = new() { ReplyTimeout = limit };
            return VhostUserFrontend.InspectAsync(path, type, options, ending).GetAwaiter().GetResult();
        }
        catch (Exception error) when (error is SocketException or ArgumentOutOfRangeException)
        {
            throw new IOException($"--socket-path={path}: {error.Message}", error);
        }
        catch (ProtocolException error)
        {
            throw new IOException($"--socket-path={path}: {error.Message}", error);
        }
        catch (OperationCanceledException)
        {
            throw new IOException("ended by a signal before the back-end had answered");
        }
    }
}

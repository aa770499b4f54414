// "outboard inspect": what a vhost-user back-end offers. Asks what the back-end says it can tell, and leaves; see
// VhostUserFrontend.InspectAsync. Exit status 1 when nobody listens or the first questions get no answer.
using System.CommandLine;
using System.Net.Sockets;
using System.Text;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
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
        path.Required = true;
        ValueOption<VirtioDeviceId?> type = TypeOption();
        SwitchOption json = new("--json", "Print a JSON object.");
        ValueOption<double?> timeout = ValueOption.Seconds(
            "--timeout", $"Longest wait for an answer. [default: {DefaultSeconds}]", MostSeconds);
        Command command = new(
            Name,
            "Print what a vhost-user back-end offers: features, queues, configuration, memory slots. Nothing is set "
            + "up. A back-end that serves one front-end only (virtiofsd, passt --one-off) ends when this one leaves.")
        {
            path, type, json, timeout,
        };
        command.SetAction(result => Run(
            path.Read(result)!, type.Read(result), json.Read(result), timeout.Read(result) ?? DefaultSeconds));
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

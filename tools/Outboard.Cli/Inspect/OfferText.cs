// What a back-end offers, as plain aligned text: one thing on a line, its name first.
using System.Text;
using Outboard.Cli.Text;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Inspect;

internal static class OfferText
{
    private const int NameWidth = 20;
    private const int MostColumns = 110;

    public static string Format(string path, BackendOffer offer)
    {
        StringBuilder text = new();
        Line(text, "socket", ErrorLine.From(path));
        Line(text, "device type", TypeOf(offer));
        Line(text, "features", $"0x{offer.Features:x}");
        Words(text, "  device", FeatureNames.Device(offer.Features, offer.Device));
        Words(text, "  ring", FeatureNames.Ring(offer.Features));
        if (offer.ProtocolFeatures is { } protocol)
        {
            Line(text, "protocol features", $"0x{(ulong)protocol:x}");
            Words(text, string.Empty, PayloadTable.NamesOf(protocol));
            Line(text, "queues", Told(offer.QueueCount, ProtocolFeatures.MultiQueue));
            Line(text, "memory slots", Told(offer.MemorySlots, ProtocolFeatures.ConfigureMemSlots));
            Line(text, "in-flight region", YesNo(protocol, ProtocolFeatures.InflightShmFd));
            Line(text, "device state", YesNo(protocol, ProtocolFeatures.DeviceState));
            Line(text, "shared memory", SharedMemory(offer));
            AppendConfig(text, offer, protocol);
        }
        else
        {
            Line(text, "protocol features", "none (without PROTOCOL_FEATURES)");
        }

        foreach (string problem in offer.Problems)
        {
            Line(text, "problem", ErrorLine.From(problem));
        }

        return text.ToString();
    }

    private static string TypeOf(BackendOffer offer) => offer.Device switch
    {
        null => "unknown: give --type for names and configuration",
        { } device when offer.IsDeviceGuessed => $"{DeviceTypeWords.Of(device)} (guessed from its features)",
        { } device => DeviceTypeWords.Of(device),
    };

    private static string Told(ulong? number, ProtocolFeatures feature) =>
        number is { } value ? $"{value}" : $"not told (without {string.Join('|', PayloadTable.NamesOf(feature))})";

    private static string YesNo(ProtocolFeatures offered, ProtocolFeatures feature) =>
        (offered & feature) != 0 ? "yes" : "no";

    private static string SharedMemory(BackendOffer offer) => offer.SharedMemory switch
    {
        null => "not told (without SHMEM)",
        { Count: 0 } => "no regions",
        { } regions => string.Join(", ", regions.Select(region =>
            $"{region.Key}: {SizeText.Format((long)region.Value)}")),
    };

    private static void AppendConfig(StringBuilder text, BackendOffer offer, ProtocolFeatures offered)
    {
        if (offer.Config is null)
        {
            string reason = (offered & ProtocolFeatures.Config) == 0 ? "not told (without CONFIG)"
                : offer.Device is null ? "not asked: give --type"
                : offer.Problems.Count > 0 ? "no answer"
                : "none that is known for this type";
            Line(text, "configuration", reason);
            return;
        }

        Line(text, "configuration", $"{offer.Config.Length} bytes");
        foreach (FieldValue field in ConfigFields(offer))
        {
            Line(text, $"  {field.Name}", FieldText.Of(field));
        }
    }

    /// <summary>The fields that mean something with the features offered.</summary>
    public static IReadOnlyList<FieldValue> ConfigFields(BackendOffer offer) =>
        offer is { Config: { } config, Device: { } device } && DeviceConfigLayouts.Of(device) is { } layout
            ? layout.Decode(config, device, FeatureNames.Device(offer.Features, device).ToHashSet())
            : [];

    private static void Line(StringBuilder text, string name, string value) =>
        text.Append($"{name.PadRight(NameWidth)} {value}".TrimEnd()).Append('\n');

    /// <summary>Words, on as many lines as they need.</summary>
    private static void Words(StringBuilder text, string name, IEnumerable<string> words)
    {
        StringBuilder line = new();
        foreach (string word in words)
        {
            if (line.Length > 0 && NameWidth + line.Length + word.Length > MostColumns)
            {
                Line(text, name, line.ToString());
                name = string.Empty;
                line.Clear();
            }

            line.Append(line.Length > 0 ? " " : string.Empty).Append(word);
        }

        Line(text, name, line.Length > 0 ? line.ToString() : "none");
    }
}

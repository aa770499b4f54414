// What a back-end offers, as one JSON object. 64-bit feature words are strings, since not every reader keeps 64 bits.
using System.Buffers;
using System.Globalization;
using System.Text.Json;
using Outboard.Cli.Text;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Inspect;

internal static class OfferJson
{
    public static byte[] Format(string path, BackendOffer offer)
    {
        ArrayBufferWriter<byte> bytes = new();
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteString("socket", path);
            json.WriteString("type", offer.Device is { } device ? DeviceTypeWords.Of(device) : null);
            json.WriteBoolean("type_guessed", offer.IsDeviceGuessed);
            json.WriteStartObject("features");
            json.WriteString("value", $"0x{offer.Features:x}");
            FieldText.WriteNames(json, "device", FeatureNames.Device(offer.Features, offer.Device));
            FieldText.WriteNames(json, "ring", FeatureNames.Ring(offer.Features));
            json.WriteEndObject();
            WriteProtocol(json, offer);
            FieldText.WriteNames(json, "problems", offer.Problems);
            json.WriteEndObject();
        }

        return [.. bytes.WrittenSpan, (byte)'\n'];
    }

    private static void WriteProtocol(Utf8JsonWriter json, BackendOffer offer)
    {
        if (offer.ProtocolFeatures is not { } protocol)
        {
            json.WriteNull("protocol_features");
            return;
        }

        json.WriteStartObject("protocol_features");
        json.WriteString("value", $"0x{(ulong)protocol:x}");
        FieldText.WriteNames(json, "names", PayloadTable.NamesOf(protocol));
        json.WriteEndObject();
        WriteNumber(json, "queues", offer.QueueCount);
        WriteNumber(json, "memory_slots", offer.MemorySlots);
        json.WriteBoolean("inflight", (protocol & ProtocolFeatures.InflightShmFd) != 0);
        json.WriteBoolean("device_state", (protocol & ProtocolFeatures.DeviceState) != 0);
        if (offer.SharedMemory is { } regions)
        {
            json.WriteStartObject("shared_memory");
            foreach ((int id, ulong size) in regions)
            {
                json.WriteNumber(id.ToString(CultureInfo.InvariantCulture), size);
            }

            json.WriteEndObject();
        }

        if (offer.Config is { } config)
        {
            json.WriteStartObject("config");
            FieldText.Write(json, OfferText.ConfigFields(offer));
            json.WriteEndObject();
            json.WriteString("config_bytes", Convert.ToHexStringLower(config));
        }
    }

    private static void WriteNumber(Utf8JsonWriter json, string name, ulong? value)
    {
        if (value is { } number)
        {
            json.WriteNumber(name, number);
        }
        else
        {
            json.WriteNull(name);
        }
    }
}

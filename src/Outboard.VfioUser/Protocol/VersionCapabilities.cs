// Version negotiation, vfio-user "VFIO_USER_VERSION": a JSON object of capabilities, from the client and back. What a
// client does not say has a default; what it says wrongly ends the connection; what nobody knows is ignored.
//
// Replies name only what the client proposed, and stay below 194 bytes: QEMU's buffer for the reply is its own request.
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Outboard.VfioUser.Protocol;

/// <summary>Capabilities that one side tells the other.</summary>
public sealed record VersionCapabilities
{
    /// <summary>The only major version.</summary>
    public const ushort Major = 0;

    /// <summary>The newest minor version that we speak.</summary>
    public const ushort Minor = 2;

    /// <summary>Largest JSON that is looked at; known clients send less than 200 bytes.</summary>
    public const int MaxJsonBytes = 4096;

    /// <summary>Deepest nesting of the JSON; the protocol has three levels.</summary>
    public const int MaxJsonDepth = 8;

    /// <summary>Largest transfer of data that we take or send in one message, the default of the protocol.</summary>
    public const int MaxTransferBytes = 1 << 20;

    /// <summary>Descriptors that we take in one message, as other servers do.</summary>
    public const int MaxMessageDescriptors = 8;

    /// <summary>Most windows of guest memory that the protocol's default allows.</summary>
    public const int DefaultMaxDmaMaps = 65535;

    /// <summary>The page size of migration and windows.</summary>
    public const ulong PageBytes = 4096;

    /// <summary>Most descriptors in a message that a peer may claim to take; above is nonsense.</summary>
    private const ulong LargestDescriptorClaim = 1024;

    private const string VersionName = "VERSION";

    /// <summary>Descriptors that the sender takes in one message.</summary>
    public int MaxMessageFds { get; init; } = 1;

    /// <summary>Bytes of data that the sender takes in one message.</summary>
    public ulong MaxDataTransferBytes { get; init; } = MaxTransferBytes;

    /// <summary>Windows of guest memory; null when not said.</summary>
    public ulong? MaxDmaMaps { get; init; }

    /// <summary>Page sizes of windows, as an OR; null when not said.</summary>
    public ulong? PageSizes { get; init; }

    /// <summary>Whether REGION_WRITE_MULTI is there; null when not said.</summary>
    public bool? WriteMultiple { get; init; }

    /// <summary>Page size of migration; null when not said.</summary>
    public ulong? MigrationPageBytes { get; init; }

    /// <summary>Whether a second socket for the server's commands is wanted (or there); null when not said.</summary>
    public bool? TwinSocket { get; init; }

    /// <summary>Which descriptor of the reply is the second socket.</summary>
    public int? TwinSocketIndex { get; init; }

    /// <summary>Reads the JSON behind a VERSION head; no bytes at all mean the defaults.</summary>
    /// <exception cref="ProtocolException">It is none, or a member has the wrong type or an impossible
    /// value.</exception>
    public static VersionCapabilities Parse(ReadOnlySpan<byte> data)
    {
        if (data.IsEmpty)
        {
            return new VersionCapabilities();
        }

        int end = data.IndexOf((byte)0);
        if (end < 0)
        {
            throw Bad("data", "has no terminating zero");
        }

        try
        {
            JsonDocumentOptions options = new() { MaxDepth = MaxJsonDepth };
            using JsonDocument document = JsonDocument.Parse(data[..end].ToArray(), options);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
            {
                throw Bad("data", "is no JSON object");
            }

            return document.RootElement.TryGetProperty("capabilities", out JsonElement capabilities)
                ? Read(Object(capabilities, "capabilities"))
                : new VersionCapabilities();
        }
        catch (JsonException error)
        {
            throw Bad("data", $"is no JSON: {error.Message}");
        }
        catch (InvalidOperationException error)
        {
            // text that is no UTF-8
            throw Bad("data", error.Message);
        }
    }

    /// <summary>As JSON with a terminating zero.</summary>
    public byte[] ToJson()
    {
        StringBuilder json = new("{\"capabilities\":{");
        json.Append(CultureInfo.InvariantCulture, $"\"max_msg_fds\":{MaxMessageFds}");
        json.Append(CultureInfo.InvariantCulture, $",\"max_data_xfer_size\":{MaxDataTransferBytes}");
        Append(json, "max_dma_maps", MaxDmaMaps);
        Append(json, "pgsizes", PageSizes);
        if (WriteMultiple is { } multiple)
        {
            json.Append(CultureInfo.InvariantCulture, $",\"write_multiple\":{(multiple ? "true" : "false")}");
        }

        if (MigrationPageBytes is { } page)
        {
            json.Append(CultureInfo.InvariantCulture, $",\"migration\":{{\"pgsize\":{page}}}");
        }

        if (TwinSocket is { } twin)
        {
            string index = TwinSocketIndex is { } number ? $",\"fd_index\":{number}" : string.Empty;
            json.Append(
                CultureInfo.InvariantCulture,
                $",\"twin_socket\":{{\"supported\":{(twin ? "true" : "false")}{index}}}");
        }

        json.Append("}}\0");
        return Encoding.UTF8.GetBytes(json.ToString());
    }

    private static VersionCapabilities Read(JsonElement capabilities)
    {
        ulong descriptors = Number(capabilities, "max_msg_fds") ?? 1;
        if (descriptors > LargestDescriptorClaim)
        {
            throw Bad("max_msg_fds", $"{descriptors} is above {LargestDescriptorClaim}");
        }

        VersionCapabilities read = new()
        {
            MaxMessageFds = (int)descriptors,
            MaxDataTransferBytes = Number(capabilities, "max_data_xfer_size") ?? MaxTransferBytes,
            MaxDmaMaps = Number(capabilities, "max_dma_maps"),
            PageSizes = Number(capabilities, "pgsizes"),
            WriteMultiple = Boolean(capabilities, "write_multiple"),
        };
        if (capabilities.TryGetProperty("migration", out JsonElement migration))
        {
            ulong page = Number(Object(migration, "migration"), "pgsize") ?? PageBytes;
            if (page != PageBytes)
            {
                throw Bad("migration.pgsize", $"{page}, and only {PageBytes} is served");
            }

            read = read with { MigrationPageBytes = page };
        }

        if (capabilities.TryGetProperty("twin_socket", out JsonElement twin))
        {
            twin = Object(twin, "twin_socket");
            read = read with
            {
                TwinSocket = Boolean(twin, "supported") ?? false,
                TwinSocketIndex = (int?)Number(twin, "fd_index"),
            };
        }

        return read;
    }

    private static void Append(StringBuilder json, string name, ulong? value)
    {
        if (value is { } number)
        {
            json.Append(CultureInfo.InvariantCulture, $",\"{name}\":{number}");
        }
    }

    private static JsonElement Object(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object ? element : throw Bad(name, $"is {element.ValueKind}, no object");

    private static ulong? Number(JsonElement parent, string name)
    {
        if (!parent.TryGetProperty(name, out JsonElement element))
        {
            return null;
        }

        return element.ValueKind == JsonValueKind.Number && element.TryGetUInt64(out ulong value)
            ? value
            : throw Bad(name, $"is no number from 0 on");
    }

    private static bool? Boolean(JsonElement parent, string name)
    {
        if (!parent.TryGetProperty(name, out JsonElement element))
        {
            return null;
        }

        return element.ValueKind is JsonValueKind.True or JsonValueKind.False
            ? element.GetBoolean()
            : throw Bad(name, "is neither true nor false");
    }

    private static ProtocolException Bad(string field, string problem) =>
        new(VersionName, field, problem) { IsFatal = true };
}

// What a back-end program answers to --print-capabilities (vhost-user.json, VHostUserBackendCapabilities):
//   type      what kind of device it serves, in the schema's words: "block", "input" ...
//   features  names of what it can do beyond the conventions; for a block device "read-only" and "blk-file"
using System.Text.Json;

namespace Outboard.VhostUser.Discovery;

/// <summary>What a back-end program can do.</summary>
/// <param name="Type">The kind of device, in the schema's words.</param>
/// <param name="Features">Its features, in the schema's words.</param>
public sealed record BackendCapabilities(string Type, IReadOnlyList<string> Features)
{
    /// <summary>The block back-end's: a file behind it, and a way to serve it read-only.</summary>
    public static BackendCapabilities Block { get; } = new("block", ["read-only", "blk-file"]);

    /// <summary>The network back-end's; the schema names no features for it.</summary>
    public static BackendCapabilities Net { get; } = new("net", []);

    /// <summary>The entropy back-end's; the schema names no features for it.</summary>
    public static BackendCapabilities Rng { get; } = new("rng", []);

    /// <summary>The console back-end's; the schema names no features for it.</summary>
    public static BackendCapabilities Console { get; } = new("console", []);

    /// <summary>The JSON text, on one line.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, DiscoveryJson.Default.BackendCapabilities);

    /// <summary>Reads what another program printed. Members that this version does not know are skipped.</summary>
    /// <exception cref="JsonException">It is not such a text; the message says why.</exception>
    public static BackendCapabilities Parse(ReadOnlySpan<byte> json)
    {
        BackendCapabilities? read = JsonSerializer.Deserialize(json, DiscoveryJson.Default.BackendCapabilities);
        return read is { Type.Length: > 0 }
            ? read with { Features = read.Features ?? [] }
            : throw new JsonException("no \"type\"");
    }
}

// One installed back-end, as its description file tells (vhost-user.json, VhostUserBackend):
//   description  text for humans          required
//   type         kind of device           required
//   binary       absolute path            required
//   tags         strings without meaning  optional
// Other members are tolerated: programs add some ("features"), and the schema grows.
using System.Text.Json;

namespace Outboard.VhostUser.Discovery;

/// <summary>An installed back-end program.</summary>
/// <param name="Description">What it is, for humans.</param>
/// <param name="Type">The kind of device that it serves, in the schema's words.</param>
/// <param name="Binary">The program's absolute path.</param>
public sealed record BackendDescription(string Description, string Type, string Binary)
{
    /// <summary>Strings that management software must not give a meaning to.</summary>
    public IReadOnlyList<string>? Tags { get; init; }

    /// <summary>Reads a description file's bytes.</summary>
    /// <exception cref="JsonException">They are no description; the message says why.</exception>
    public static BackendDescription Parse(ReadOnlySpan<byte> json)
    {
        BackendDescription? read = JsonSerializer.Deserialize(json, DiscoveryJson.Default.BackendDescription);
        return read switch
        {
            null => throw new JsonException("null instead of an object"),
            { Description: null } => throw new JsonException("no \"description\""),
            { Type: null or "" } => throw new JsonException("no \"type\""),
            { Binary: null or "" } => throw new JsonException("no \"binary\""),
            _ when !read.Binary.StartsWith('/') =>
                throw new JsonException($"\"binary\" is {read.Binary}, which is no absolute path"),
            _ => read,
        };
    }

    /// <summary>The text of a description file.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, DiscoveryFileJson.Default.BackendDescription) + "\n";
}

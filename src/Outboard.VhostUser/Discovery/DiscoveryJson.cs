// How the two records of this folder become JSON and back, generated at build time so that a trimmed program has it.
using System.Text.Json.Serialization;

namespace Outboard.VhostUser.Discovery;

/// <summary>One line, as programs print it.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(BackendCapabilities))]
[JsonSerializable(typeof(BackendDescription))]
internal sealed partial class DiscoveryJson : JsonSerializerContext;

/// <summary>Indented, as files are written.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    WriteIndented = true)]
[JsonSerializable(typeof(BackendDescription))]
internal sealed partial class DiscoveryFileJson : JsonSerializerContext;

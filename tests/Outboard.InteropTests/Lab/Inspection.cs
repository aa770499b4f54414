// Inspection.cs - what "outboard inspect --json" says about a back-end.
using System.Text.Json;

namespace Outboard.InteropTests.Lab;

internal static class Inspection
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(1);

    public static async Task<JsonElement> RunAsync(string socketPath, string type)
    {
        await using PeerProcess process = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "inspect", $"--socket-path={socketPath}", $"--type={type}", "--json");
        int status = await process.WaitForExitAsync(s_limit);
        if (status != 0)
        {
            throw new LabException(process.Describe());
        }

        return JsonDocument.Parse(process.Output.Text).RootElement;
    }

    /// <summary>The words of an array, in one line.</summary>
    public static string Words(JsonElement offer, string section, string member) => string.Join(
        ' ', offer.GetProperty(section).GetProperty(member).EnumerateArray().Select(word => word.GetString()));
}

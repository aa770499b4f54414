// MigratingGuest.cs - a guest that moves from one QEMU to another, and what both of them show.
// Each side has a back-end of its own; which, is the test's business. The machine that arrives is made with the same
// options as the one that leaves, and goes on with its script: what it writes after that is on the new one's console.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Lab;

namespace Outboard.InteropTests.Migration;

internal static class MigratingGuest
{
    private static readonly TimeSpan s_migrationLimit = TimeSpan.FromMinutes(3);
    private const long PrecopyBytesPerSecond = 64 << 20;
    private const long PostcopyBytesPerSecond = 30 << 20;

    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_socketLimit = TimeSpan.FromSeconds(60);

    /// <summary>Makes the machine that will take a guest over.</summary>
    public static async Task<GuestVm> StartIncomingAsync(GuestOptions options, string socket)
    {
        GuestVm guest = await GuestVm.StartAsync(options with { IncomingAddress = $"unix:{socket}", OffersQmp = true });
        try
        {
            await guest.Process.WaitForSocketAsync(socket, s_socketLimit);
            return guest;
        }
        catch
        {
            await guest.DisposeAsync();
            throw;
        }
    }

    /// <summary>Moves a guest that runs in its new place before its memory has come.</summary>
    /// <param name="guest">The guest that leaves.</param>
    /// <param name="options">The machine that will take it over.</param>
    /// <param name="socket">Where it is expected.</param>
    /// <returns>The machine that took it over.</returns>
    public static async Task<GuestVm> MoveByPostcopyAsync(GuestVm guest, GuestOptions options, string socket)
    {
        GuestVm next = await GuestVm.StartAsync(options with { IncomingAddress = "defer", OffersQmp = true });
        try
        {
            await EnableAsync(next, "postcopy-ram");
            await EnableAsync(guest, "postcopy-ram");
            await next.QmpAsync("migrate-incoming", new JsonObject { ["uri"] = $"unix:{socket}" });
            await next.Process.WaitForSocketAsync(socket, s_socketLimit);

            // Slow, so that most of the memory has not come when the guest begins to run there.
            await BeginAsync(guest, socket, PostcopyBytesPerSecond);
            await WaitForStatusAsync(guest, "active");
            await guest.QmpAsync("migrate-start-postcopy");
            JsonNode state = await WaitForStatusAsync(guest, "completed");
            await EnableAsync(next, "postcopy-ram", enabled: false);
            return (long?)state["ram"]?["postcopy-requests"] > 0
                ? next
                : throw new LabException($"no page was asked for after the guest had moved: {state.ToJsonString()}");
        }
        catch
        {
            await next.DisposeAsync();
            throw;
        }
    }

    /// <summary>Turns a capability of migrations on or off, on one side.</summary>
    public static Task<JsonNode> EnableAsync(GuestVm guest, string capability, bool enabled = true) =>
        guest.QmpAsync("migrate-set-capabilities", new JsonObject
        {
            ["capabilities"] = new JsonArray(
                new JsonObject { ["capability"] = capability, ["state"] = enabled }),
        });

    /// <summary>Begins a migration.</summary>
    /// <param name="guest">The guest that leaves.</param>
    /// <param name="socket">Where it is expected.</param>
    /// <param name="bytesPerSecond">How fast; slow enough, and it never ends by itself.</param>
    public static async Task BeginAsync(GuestVm guest, string socket, long bytesPerSecond = 1L << 30)
    {
        await guest.QmpAsync("migrate-set-parameters", new JsonObject
        {
            ["max-bandwidth"] = bytesPerSecond,
            ["downtime-limit"] = 2000,
        });
        await guest.QmpAsync("migrate", new JsonObject { ["uri"] = $"unix:{socket}" });
    }

    /// <summary>Waits until a migration has come to some state.</summary>
    public static async Task<JsonNode> WaitForStatusAsync(GuestVm guest, params string[] statuses)
    {
        DateTime limit = DateTime.UtcNow + s_migrationLimit;
        while (true)
        {
            JsonNode state = await guest.QmpAsync("query-migrate");
            string status = (string?)state["status"] ?? "none";
            if (statuses.Contains(status))
            {
                return state;
            }

            if (status == "failed" || DateTime.UtcNow > limit)
            {
                throw new LabException(
                    $"the migration came to {state.ToJsonString()}, not to {string.Join(" or ", statuses)}. "
                    + guest.Process.Describe());
            }

            await Task.Delay(s_pollInterval);
        }
    }

    /// <summary>Moves a guest, which goes on in the other machine.</summary>
    public static async Task MoveAsync(GuestVm guest, string socket)
    {
        // Slow enough that devices write to memory that was copied already.
        await BeginAsync(guest, socket, PrecopyBytesPerSecond);
        await WaitForStatusAsync(guest, "completed");
    }
}

// A device process: opens the driver's memory and the state file by the paths it is given, and serves until it is
// killed, or kills itself before a store whose number it is given.
//
//   child MEMORY BUS-ADDRESS STATE TRACKED-REGION-ADDRESS SHAPE DESC DRIVER DEVICE BASE STORES
using System.Diagnostics;
using System.Globalization;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.JournalKills;

internal static class KilledChild
{
    /// <summary>The shape as an argument.</summary>
    public static string Text(KillShape shape) => string.Create(
        CultureInfo.InvariantCulture,
        $"{(shape.IsPacked ? 1 : 0)},{(shape.IsTracked ? 1 : 0)},{(shape.IsRegister ? 1 : 0)},{shape.Size},"
        + $"{(shape.IsInOrder ? 1 : 0)},{(shape.IsDeferred ? 1 : 0)}");

    /// <summary>Serves.</summary>
    public static int Run(string[] arguments)
    {
        string[] parts = arguments[4].Split(',');
        KillShape shape = new(
            parts[0] == "1", parts[1] == "1", parts[2] == "1", int.Parse(parts[3], CultureInfo.InvariantCulture),
            parts[4] == "1", parts[5] == "1");
        ulong[] numbers = [.. arguments[5..].Select(text => ulong.Parse(text, CultureInfo.InvariantCulture))];
        using OwnedFile file = OwnedFile.Open(arguments[0]);
        using MemoryMapping mapping = file.Map();
        ulong address = ulong.Parse(arguments[1], CultureInfo.InvariantCulture);
        using MemoryRegion region = new(address, mapping.Segment.Address, mapping);
        GuestMemory memory = GuestMemory.Create([region]);
        uint bytes = InflightSpec.QueueBytes(shape.IsPacked, shape.Size);
        MemoryWindow window = default;
        if (shape.IsTracked
            && !memory.TryGetWindow(ulong.Parse(arguments[3], CultureInfo.InvariantCulture), bytes, out window))
        {
            return 2;
        }

        VringSetup setup = new()
        {
            Index = 0,
            Size = shape.Size,
            Addresses = new VringAddresses(numbers[0], numbers[1], numbers[2]),
            Base = (uint)numbers[3],
            Features = shape.Features,
            Memory = memory,
            Inflight = shape.IsTracked ? window : null,
        };
        int limit = (int)Math.Min(numbers[4], int.MaxValue);
        using StoreJournal stores = new(limit, static () => Process.GetCurrentProcess().Kill());
        using KilledDevice device = new(shape, OwnedFile.Open(arguments[2]), setup);
        while (device.Fault == VirtqueueFault.None)
        {
            if (device.Serve(4) == 0)
            {
                Thread.Yield();
            }
        }

        return 1;
    }
}

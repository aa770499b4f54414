// What device types are called on command lines: the words of vhost-user.json where it has one, and the usual short
// names of programs for the rest.
using System.Globalization;

namespace Outboard.Virtio.Spec;

/// <summary>Short names of device types.</summary>
public static class DeviceTypeWords
{
    private static readonly (VirtioDeviceId Id, string Word)[] s_words =
    [
        (VirtioDeviceId.Network, "net"), (VirtioDeviceId.Block, "block"), (VirtioDeviceId.Console, "console"),
        (VirtioDeviceId.Entropy, "rng"), (VirtioDeviceId.Balloon, "balloon"), (VirtioDeviceId.Scsi, "scsi"),
        (VirtioDeviceId.NineP, "9p"), (VirtioDeviceId.Gpu, "gpu"), (VirtioDeviceId.Clock, "rtc"),
        (VirtioDeviceId.Input, "input"), (VirtioDeviceId.Socket, "vsock"), (VirtioDeviceId.Crypto, "crypto"),
        (VirtioDeviceId.Iommu, "iommu"), (VirtioDeviceId.Memory, "mem"), (VirtioDeviceId.Sound, "sound"),
        (VirtioDeviceId.FileSystem, "fs"), (VirtioDeviceId.PersistentMemory, "pmem"), (VirtioDeviceId.Scmi, "scmi"),
        (VirtioDeviceId.I2cAdapter, "i2c"), (VirtioDeviceId.Can, "can"), (VirtioDeviceId.Gpio, "gpio"),
        (VirtioDeviceId.Spi, "spi"), (VirtioDeviceId.DemoCounter, "counter"), (VirtioDeviceId.DemoRegister, "register"),
    ];

    /// <summary>All words.</summary>
    public static IEnumerable<string> All => s_words.Select(entry => entry.Word);

    /// <summary>The type's word, or its number when it has none.</summary>
    public static string Of(VirtioDeviceId id) =>
        Array.Find(s_words, entry => entry.Id == id).Word ?? ((int)id).ToString(CultureInfo.InvariantCulture);

    /// <summary>Reads a word or a number.</summary>
    /// <returns>Null when it is neither.</returns>
    public static VirtioDeviceId? Parse(string text)
    {
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number))
        {
            return number > 0 ? (VirtioDeviceId)number : null;
        }

        (VirtioDeviceId Id, string Word) found = Array.Find(s_words, entry => entry.Word == text);
        return found.Word is null ? null : found.Id;
    }
}

// Device types, numbered as in virtio-v1.3 "5 Device Types".
namespace Outboard.Virtio.Spec;

/// <summary>What a virtio device is.</summary>
public enum VirtioDeviceId
{
    /// <summary>Network card.</summary>
    Network = 1,

    /// <summary>Block device.</summary>
    Block = 2,

    /// <summary>Console.</summary>
    Console = 3,

    /// <summary>Entropy source.</summary>
    Entropy = 4,

    /// <summary>Memory balloon, traditional.</summary>
    Balloon = 5,

    /// <summary>SCSI host.</summary>
    Scsi = 8,

    /// <summary>9P transport.</summary>
    NineP = 9,

    /// <summary>GPU.</summary>
    Gpu = 16,

    /// <summary>Clock.</summary>
    Clock = 17,

    /// <summary>Input.</summary>
    Input = 18,

    /// <summary>Socket.</summary>
    Socket = 19,

    /// <summary>Crypto.</summary>
    Crypto = 20,

    /// <summary>IOMMU.</summary>
    Iommu = 23,

    /// <summary>Memory that is plugged and unplugged.</summary>
    Memory = 24,

    /// <summary>Sound.</summary>
    Sound = 25,

    /// <summary>File system.</summary>
    FileSystem = 26,

    /// <summary>Persistent memory.</summary>
    PersistentMemory = 27,

    /// <summary>SCMI.</summary>
    Scmi = 32,

    /// <summary>I2C adapter.</summary>
    I2cAdapter = 34,

    /// <summary>CAN controller.</summary>
    Can = 36,

    /// <summary>GPIO.</summary>
    Gpio = 41,

    /// <summary>SPI controller.</summary>
    Spi = 45,

    /// <summary>This project's persistent counter, a demonstration: no number of the specification.</summary>
    DemoCounter = 61,

    /// <summary>This project's compare-and-swap register, a demonstration: no number of the specification.</summary>
    DemoRegister = 62,
}

// All interrupts of a function, and how its registers gate them: INTx by the command register, MSI by its mask bits,
// MSI-X by the function mask and by the vectors' own masks.
//
// Whether MSI or MSI-X is enabled does not gate: a client that binds a line wants it, and clients that keep the
// capability to themselves (they emulate the registers) may never write the bit here.
using Outboard.Pci.Capabilities;
using Outboard.Pci.Spec;

namespace Outboard.Pci.Interrupts;

/// <summary>The interrupts of a function. Triggers may come from any thread.</summary>
public sealed class PciInterrupts
{
    private readonly PciConfigSpace _config;
    private readonly InterruptVectors[] _kinds = new InterruptVectors[5];
    private readonly Lock _pinLock = new();

    internal PciInterrupts(PciConfigSpace config)
    {
        _config = config;
        for (int kind = 0; kind < _kinds.Length; kind++)
        {
            _kinds[kind] = new InterruptVectors(kind >= (int)InterruptKind.Error ? 1 : 0);
        }
    }

    /// <summary>The vectors of one kind; none when the function has no such interrupts.</summary>
    public InterruptVectors this[InterruptKind kind] => _kinds[(int)kind];

    /// <summary>The MSI capability; null when there is none.</summary>
    public MsiCapability? Msi { get; private set; }

    /// <summary>The MSI-X capability; null when there is none.</summary>
    public MsixCapability? Msix { get; private set; }

    /// <summary>Whether a guest enabled MSI-X.</summary>
    public bool IsMsixEnabled => Msix is { } msix && msix.IsEnabled(_config);

    /// <summary>Whether a guest enabled MSI.</summary>
    public bool IsMsiEnabled => Msi is { } msi && msi.IsEnabled(_config);

    /// <summary>Asserts or releases the pin, and its bit in the status register.</summary>
    public void SetPin(bool isAsserted)
    {
        ushort bit = (ushort)PciStatus.Interrupt;
        lock (_pinLock)
        {
            _config.Change16(PciRegister.Status, isAsserted ? bit : (ushort)0, isAsserted ? (ushort)0 : bit);
            this[InterruptKind.Intx].SetLevel(0, isAsserted);
        }
    }

    internal void AddPin(bool isLevel)
    {
        _config.Set(PciRegister.InterruptPin, 1, 1);
        _kinds[(int)InterruptKind.Intx] = new InterruptVectors(1)
        {
            IsAutoMasked = isLevel,
            Gate = _ => ((PciCommand)_config.Get16(PciRegister.Command)).HasFlag(PciCommand.IntxDisable),
        };
    }

    internal void Add(MsiCapability capability)
    {
        Msi = capability;
        InterruptVectors vectors = new(capability.VectorCount);
        if (capability.HasMasks)
        {
            vectors.Gate = vector => capability.IsMasked(_config, vector);
            vectors.PendingChanged += (vector, pending) => capability.SetPending(_config, vector, pending);
        }

        _kinds[(int)InterruptKind.Msi] = vectors;
    }

    internal void Add(MsixCapability capability)
    {
        Msix = capability;
        InterruptVectors vectors = new(capability.VectorCount)
        {
            Gate = vector => capability.IsMasked(_config, vector),
        };
        if (capability.Table is { } table)
        {
            vectors.PendingChanged += table.SetPending;
            table.MaskChanged += vectors.DeliverAll;
        }

        _kinds[(int)InterruptKind.Msix] = vectors;
    }

    internal void OnConfigWritten()
    {
        foreach (InterruptVectors vectors in _kinds)
        {
            vectors.DeliverAll();
        }
    }

    internal void ClearPending()
    {
        _config.Change16(PciRegister.Status, 0, (ushort)PciStatus.Interrupt);
        foreach (InterruptVectors vectors in _kinds)
        {
            vectors.ClearPending();
        }
    }

    internal void Release()
    {
        foreach (InterruptVectors vectors in _kinds)
        {
            vectors.Release();
        }
    }
}

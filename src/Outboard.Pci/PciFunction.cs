// Waist 2: what a PCI function is, to any transport. Configuration space, BARs, capabilities and interrupts are data;
// a device overrides what happens behind its BARs. No socket, message or file descriptor of a peer has a name here.
//
// A transport calls AttachAsync when a client has come, ReadConfig ... WriteBarAsync and ResetAsync one after another
// on its control loop, and DetachAsync when the client has gone. The state of the device survives that.
// Not here: bridges (header type 1), SR-IOV, multi-function devices.
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Dma;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;

namespace Outboard.Pci;

/// <summary>Why a function is reset.</summary>
public enum PciResetKind
{
    /// <summary>The client asked.</summary>
    Device,

    /// <summary>The guest asked, by the PCI Express capability.</summary>
    FunctionLevel,
}

/// <summary>A PCI function.</summary>
/// <remarks>
/// <see cref="ReadBar"/>, <see cref="WriteBar"/> and the On... members are called on the transport's control loop, one
/// at a time. They should be quick: a client waits, and takes a device that keeps it waiting for seconds for a broken
/// one. What takes longer is started there and finished elsewhere. Interrupts may be triggered from any thread.
/// </remarks>
public abstract class PciFunction
{
    private readonly PciBar?[] _bars = new PciBar?[PciBar.Count];
    private readonly CapabilityList _capabilities;
    private ExpressCapability? _express;

    /// <summary>Describes the function; BARs, capabilities and the interrupt pin are added by the
    /// constructor.</summary>
    /// <param name="identity">Who it is.</param>
    /// <param name="isExpress">Whether the configuration space is the large one of PCI Express.</param>
    protected PciFunction(PciIdentity identity, bool isExpress = false)
    {
        Config = new PciConfigSpace(isExpress ? PciRegister.ExpressBytes : PciRegister.FirstExtended);
        Interrupts = new PciInterrupts(Config);
        _capabilities = new CapabilityList(Config);
        Config.Set(PciRegister.VendorId, identity.VendorId, sizeof(ushort));
        Config.Set(PciRegister.DeviceId, identity.DeviceId, sizeof(ushort));
        Config.Set(PciRegister.Revision, identity.Revision | (identity.ClassCode << 8), sizeof(uint));
        Config.Set(PciRegister.SubsystemVendorId, identity.SubsystemVendorId, sizeof(ushort));
        Config.Set(PciRegister.SubsystemId, identity.SubsystemId, sizeof(ushort));
        Config.AllowWrites(PciRegister.Command, (ulong)PciCommand.Writable, sizeof(ushort));
        Config.AllowClears(PciRegister.Status, (ulong)PciStatus.Errors, sizeof(ushort));
        Config.AllowWrites(PciRegister.CacheLineSize, ushort.MaxValue, sizeof(ushort));
        Config.AllowWrites(PciRegister.InterruptLine, byte.MaxValue, 1);
    }

    /// <summary>The configuration space.</summary>
    public PciConfigSpace Config { get; }

    /// <summary>The interrupts.</summary>
    public PciInterrupts Interrupts { get; }

    /// <summary>The BARs by index; null for one that is not there (or the upper half of a 64-bit one).</summary>
    public IReadOnlyList<PciBar?> Bars => _bars;

    /// <summary>The expansion ROM; null without.</summary>
    public ExpansionRom? Rom { get; private set; }

    /// <summary>Guest memory; empty while no client is there.</summary>
    public DmaSpace Dma { get; private set; } = DmaSpace.None;

    /// <summary>How the function's state moves; null when it does not.</summary>
    public virtual PciMigration? Migration => null;

    /// <summary>
    /// Whether the function hands guest memory on to somebody else: regions then keep what they were mapped from.
    /// </summary>
    public virtual bool KeepsMemoryObjects => false;

    /// <summary>
    /// Whether threads of the function write mapped memory by themselves, and so need a log to mark while the client
    /// wants to know of written pages. What goes through <see cref="Dma"/> is marked there.
    /// </summary>
    public virtual bool NeedsDirtyLog => false;

    /// <summary>Whether a reset also puts the configuration space back (but for BARs that a client restores).</summary>
    protected virtual bool ResetsConfig => true;

    /// <summary>Adds a BAR.</summary>
    /// <exception cref="ArgumentException">The index is taken.</exception>
    protected void AddBar(PciBar bar)
    {
        ArgumentNullException.ThrowIfNull(bar);
        int last = bar.Kind == PciBarKind.Memory64 ? bar.Index + 1 : bar.Index;
        bool follows64 = bar.Index % 2 != 0 && _bars[bar.Index - 1] is { Kind: PciBarKind.Memory64 };
        if (_bars[bar.Index] is not null || _bars[last] is not null || follows64)
        {
            throw new ArgumentException($"BAR {bar.Index} is taken", nameof(bar));
        }

        _bars[bar.Index] = bar;
        bar.PlaceIn(Config);
    }

    /// <summary>Sets the expansion ROM.</summary>
    protected void AddRom(ExpansionRom rom)
    {
        ArgumentNullException.ThrowIfNull(rom);
        Rom = rom;
        rom.PlaceIn(Config);
    }

    /// <summary>Adds a capability at the next free place, or at <paramref name="offset"/>.</summary>
    protected T AddCapability<T>(T capability, int offset = 0)
        where T : PciCapability
    {
        ArgumentNullException.ThrowIfNull(capability);
        _capabilities.Add(capability, offset);
        switch (capability)
        {
            case MsiCapability msi:
                Interrupts.Add(msi);
                break;
            case MsixCapability msix:
                Interrupts.Add(msix);
                break;
            case ExpressCapability express:
                _express = express;
                break;
        }

        return capability;
    }

    /// <summary>Gives the function the pin INTA.</summary>
    /// <param name="isLevel">
    /// The pin is asserted and released (<see cref="PciInterrupts.SetPin"/>), and masks itself with each signal until
    /// the client unmasks it. Otherwise each trigger is one signal.
    /// </param>
    protected void AddInterruptPin(bool isLevel = true) => Interrupts.AddPin(isLevel);

    /// <summary>A client has come.</summary>
    public void Attach(DmaSpace dma)
    {
        ArgumentNullException.ThrowIfNull(dma);
        Config.Remember();
        Dma = dma;
    }

    /// <summary>The client has gone, with its memory and its interrupts. The rest of the state stays.</summary>
    public async ValueTask DetachAsync()
    {
        await OnDetachedAsync().ConfigureAwait(false);
        await OnLogChangedAsync(null).ConfigureAwait(false);
        Dma = DmaSpace.None;
        Interrupts.Release();
    }

    /// <summary>
    /// Mapped guest memory changed. When the task ends nothing of the old memory is in use any more.
    /// </summary>
    /// <param name="keepsOldRegions">Regions were only added: nothing need wait.</param>
    public ValueTask ChangeMemoryAsync(bool keepsOldRegions) =>
        UsesMemory ? OnMemoryChangedAsync(Dma.Memory, keepsOldRegions) : default;

    /// <summary>The client wants to know of written pages, or no more.</summary>
    /// <param name="log">What to mark; null when that ends. It outlives its use.</param>
    public ValueTask ChangeLogAsync(DirtyLog? log) => OnLogChangedAsync(log);

    /// <summary>The client bound, masked or unmasked interrupts.</summary>
    public ValueTask ChangeInterruptsAsync() => OnInterruptsChangedAsync();

    /// <summary>Reads the configuration space.</summary>
    public void ReadConfig(uint offset, Span<byte> destination)
    {
        OnConfigReading(offset, destination.Length);
        Config.Read(offset, destination);
    }

    /// <summary>Writes the configuration space, with what follows from it.</summary>
    public async ValueTask WriteConfigAsync(uint offset, ReadOnlyMemory<byte> source)
    {
        bool resets = _express is { } express && express.AsksForReset(offset, source.Span);
        Config.Write(offset, source.Span);
        Interrupts.Msi?.OnWritten(Config);
        if (resets)
        {
            await ResetAsync(PciResetKind.FunctionLevel).ConfigureAwait(false);
        }

        Interrupts.OnConfigWritten();
        await OnInterruptsChangedAsync().ConfigureAwait(false);
        await OnConfigWrittenAsync(offset, source.Length).ConfigureAwait(false);
    }

    /// <summary>Reads from a BAR; the range lies inside it.</summary>
    public void ReadBarAt(PciBar bar, ulong offset, Span<byte> destination)
    {
        ArgumentNullException.ThrowIfNull(bar);
        while (!destination.IsEmpty)
        {
            (BarPart part, ulong start, int count) = FindPart(bar, offset, destination.Length);
            Span<byte> here = destination[..count];
            switch (part)
            {
                case BarPart.MsixTable:
                    Interrupts.Msix!.Table!.ReadTable(offset - start, here);
                    break;
                case BarPart.MsixPending:
                    Interrupts.Msix!.Table!.ReadPending(offset - start, here);
                    break;
                case BarPart.Memory:
                    bar.Memory!.Window.Slice((uint)offset, (uint)count).Span.CopyTo(here);
                    break;
                default:
                    ReadBar(bar.Index, offset, here);
                    break;
            }

            destination = destination[count..];
            offset += (uint)count;
        }
    }

    /// <summary>Writes to a BAR; the range lies inside it.</summary>
    public async ValueTask WriteBarAtAsync(PciBar bar, ulong offset, ReadOnlyMemory<byte> source)
    {
        ArgumentNullException.ThrowIfNull(bar);
        while (!source.IsEmpty)
        {
            (BarPart part, ulong start, int count) = FindPart(bar, offset, source.Length);
            switch (part)
            {
                case BarPart.MsixTable:
                    Interrupts.Msix!.Table!.WriteTable(offset - start, source.Span[..count]);
                    await OnInterruptsChangedAsync().ConfigureAwait(false);
                    break;
                case BarPart.MsixPending:
                    break;
                case BarPart.Memory:
                    source.Span[..count].CopyTo(bar.Memory!.Window.Slice((uint)offset, (uint)count).Span);
                    break;
                default:
                    await WriteBar(bar.Index, offset, source.Span[..count]).ConfigureAwait(false);
                    break;
            }

            source = source[count..];
            offset += (uint)count;
        }
    }

    /// <summary>Resets the function. Interrupts stay bound, and guest memory stays.</summary>
    public async ValueTask ResetAsync(PciResetKind kind)
    {
        await OnResetAsync(kind).ConfigureAwait(false);
        Interrupts.ClearPending();
        Interrupts.Msix?.Table?.Reset();
        if (ResetsConfig)
        {
            Config.Restore();
        }
    }

    /// <summary>A guest reads a BAR that has no memory of its own. Any width, any alignment, inside the BAR.</summary>
    protected virtual void ReadBar(int bar, ulong offset, Span<byte> destination) => destination.Clear();

    /// <summary>A guest writes a BAR that has no memory of its own. Any width, any alignment, inside the BAR.</summary>
    /// <returns>A task that ends when the write has taken effect; the client waits for it.</returns>
    protected virtual ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source) => default;

    /// <summary>
    /// Mapped guest memory changed to <see cref="DmaSpace.Memory"/> of <see cref="Dma"/>. When the task ends nothing of
    /// the old memory may be in use: it is unmapped then.
    /// </summary>
    /// <param name="memory">The new snapshot.</param>
    /// <param name="keepsOldRegions">Regions were only added: nothing need wait.</param>
    protected virtual ValueTask OnMemoryChangedAsync(GuestMemory memory, bool keepsOldRegions) => default;

    /// <summary>Whether the function wants to hear of changes of memory now. Asked before each change.</summary>
    protected virtual bool UsesMemory => false;

    /// <summary>The function's own part of a reset.</summary>
    protected virtual ValueTask OnResetAsync(PciResetKind kind) => default;

    /// <summary>
    /// What is written to mapped memory is to be marked from now on, or no more. When the task ends, everything that is
    /// written later is marked, and nothing is marked where it was before.
    /// </summary>
    protected virtual ValueTask OnLogChangedAsync(DirtyLog? log) => default;

    /// <summary>
    /// Interrupts were bound, masked, unmasked or enabled; also after each write to the configuration space. For a
    /// function whose interrupts somebody else raises.
    /// </summary>
    protected virtual ValueTask OnInterruptsChangedAsync() => default;

    /// <summary>The client has gone: when the task ends nothing of its memory may be in use.</summary>
    protected virtual ValueTask OnDetachedAsync() => default;

    /// <summary>A guest is about to read the configuration space: what changes by itself is set now.</summary>
    protected virtual void OnConfigReading(uint offset, int count)
    {
    }

    /// <summary>A guest wrote the configuration space.</summary>
    protected virtual ValueTask OnConfigWrittenAsync(uint offset, int count) => default;

    private enum BarPart
    {
        Function,
        Memory,
        MsixTable,
        MsixPending,
    }

    /// <summary>What lies at an offset of a BAR, where that begins, and how much of an access it covers.</summary>
    private (BarPart Part, ulong Start, int Count) FindPart(PciBar bar, ulong offset, int count)
    {
        BarPart plain = bar.Memory is null ? BarPart.Function : BarPart.Memory;
        if (Interrupts.Msix is not { Table: { } table } msix || msix.Bar != bar.Index)
        {
            return (plain, 0, count);
        }

        ulong end = offset + (ulong)count;
        foreach ((BarPart part, ulong start, int length) in (ReadOnlySpan<(BarPart, ulong, int)>)
            [(BarPart.MsixTable, msix.TableOffset, table.TableBytes),
                (BarPart.MsixPending, msix.PendingOffset, table.PendingBytes)])
        {
            if (offset >= start && offset - start < (ulong)length)
            {
                return (part, start, (int)Math.Min((ulong)count, start + (ulong)length - offset));
            }

            if (offset < start && end > start)
            {
                end = start;
            }
        }

        return (plain, 0, (int)(end - offset));
    }
}

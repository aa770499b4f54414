// An NVMe controller, version 1.4, as a PCI function: registers and doorbells in BAR 0, MSI-X in BAR 2 (or MSI).
//
//   NvmeController    registers, life cycle, interrupts                       the transport's control loop
//   Admin/AdminQueue  admin commands, asynchronous events                     a task of its own
//   NvmeWorker        I/O queues, their disks, their interrupts               one thread each
//
// Enabling and disabling take effect when the status register says so, as the specification has it: a write to the
// configuration register never waits for the disks. A guest never gets an error for a write.
// Not here: controller memory buffer, subsystem reset, several controllers of one subsystem, namespace management,
// formatting, firmware updates, security, reservations, zoned namespaces, fused commands, keep-alive.
using System.Diagnostics;
using System.Numerics;
using System.Text;
using Microsoft.Extensions.Logging;
using Outboard.Devices.Nvme.Admin;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Dma;
using Outboard.Pci.Interrupts;

namespace Outboard.Devices.Nvme;

/// <summary>An NVMe controller. Disposing stops its threads; the disks stay their makers'.</summary>
public sealed partial class NvmeController : PciFunction, IAsyncDisposable
{
    /// <summary>Most namespaces: each queue has a queue of each namespace's disk.</summary>
    public const int MaxNamespaces = 64;

    /// <summary>Pages of up to 64 KiB.</summary>
    private const int MaxPageShift = 4;

    /// <summary>What a driver is told to wait for us, in units of 500 ms.</summary>
    private const uint TimeoutHalfSeconds = 20;

    private const int RegistersBar = 0;
    private const int VectorsBar = 2;
    private const int LargestQueue = 4096;
    private const int LargestStride = 10;

    private readonly NvmeOptions _options;
    private readonly ILogger _log;
    private readonly CompletionQueue?[] _completions;
    private readonly SubmissionQueue?[] _submissions;
    private readonly Lock _pinLock = new();
    private readonly NvmeCounters _ended = new();
    private readonly long _made = Stopwatch.GetTimestamp();

    private uint _interruptMask;
    private uint _adminAttributes;
    private ulong _adminSubmission;
    private ulong _adminCompletion;
    private volatile bool _usesVectors;
    private TimeSpan _poweredBefore;

    /// <summary>Makes a controller.</summary>
    /// <param name="namespaces">Its namespaces, numbered from 1.</param>
    /// <param name="options">How it presents itself.</param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    public NvmeController(IReadOnlyList<NvmeNamespace> namespaces, NvmeOptions? options = null)
        : base(
            new PciIdentity(0x1234, 0x6e76)
            {
                ClassCode = 0x010802,
                SubsystemVendorId = 0x1234,
                SubsystemId = 0x6e76,
                Revision = 1,
            },
            isExpress: true)
    {
        ArgumentNullException.ThrowIfNull(namespaces);
        _options = options ?? new NvmeOptions();
        Check(namespaces, _options);
        _log = _options.Logger;
        Namespaces = [.. namespaces];
        _completions = new CompletionQueue?[QueuePairs + 1];
        _submissions = new SubmissionQueue?[QueuePairs + 1];
        Events = new EventLog(this);
        _migration = new NvmeMigration(this);
        _hasWriteCache = _options.WriteCache;
        AddBars();
        AddCapability(new PowerManagementCapability());
        AddCapability(new ExpressCapability());
        AddInterruptPin();
    }

    internal IReadOnlyList<NvmeNamespace> Namespaces { get; }

    internal NvmeOptions Options => _options;

    internal int QueuePairs => _options.QueuePairs;

    internal int StrideBytes => sizeof(uint) << _options.DoorbellStride;

    /// <summary>Whether the driver uses MSI-X or MSI, and not the pin.</summary>
    internal bool UsesVectors => _usesVectors;

    private bool HasEnabledVectors => Interrupts.IsMsixEnabled || Interrupts.IsMsiEnabled;

    /// <summary>Interrupt vectors that queues may have.</summary>
    internal int VectorCount => _options.HasMsix ? QueuePairs + 1 : 1;

    internal EventLog Events { get; }

    internal ErrorLog Errors { get; } = new();

    /// <summary>How long the controller works, in all processes where it did.</summary>
    internal TimeSpan PoweredOn => _poweredBefore + Stopwatch.GetElapsedTime(_made);

    /// <inheritdoc/>
    protected override bool UsesMemory
    {
        get
        {
            lock (_lifeLock)
            {
                return _workers.Length > 0;
            }
        }
    }

    /// <summary>Looks at the disks' sizes again, and tells the driver when one has changed. From any thread.</summary>
    /// <returns>Whether one has changed.</returns>
    public bool RefreshSizes()
    {
        bool any = false;
        for (int i = 0; i < Namespaces.Count; i++)
        {
            if (Namespaces[i].RefreshSize())
            {
                any = true;
                Events.OnNamespaceChanged((uint)i + 1);
            }
        }

        return any;
    }

    /// <inheritdoc/>
    protected override void ReadBar(int bar, ulong offset, Span<byte> destination)
    {
        destination.Clear();
        if (bar != RegistersBar || offset >= NvmeRegister.Bytes)
        {
            return;
        }

        Span<byte> all = stackalloc byte[NvmeRegister.Bytes];
        all.Clear();
        Put(all, NvmeRegister.Capabilities, Capabilities);
        Put(all, NvmeRegister.Version, NvmeRegister.Version14);
        Put(all, NvmeRegister.InterruptMaskSet, Volatile.Read(ref _interruptMask));
        Put(all, NvmeRegister.InterruptMaskClear, Volatile.Read(ref _interruptMask));
        Put(all, NvmeRegister.Configuration, _configuration.Value);
        Put(all, NvmeRegister.Status, (uint)Status);
        Put(all, NvmeRegister.AdminQueueAttributes, _adminAttributes);
        Put(all, NvmeRegister.AdminSubmissionQueue, _adminSubmission);
        Put(all, NvmeRegister.AdminCompletionQueue, _adminCompletion);
        all[(int)offset..Math.Min((int)offset + destination.Length, all.Length)].CopyTo(destination);
    }

    /// <inheritdoc/>
    /// <remarks>A write counts for each register of 32 bits (of 64: each half) that it covers as a whole.</remarks>
    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
    {
        if (bar != RegistersBar)
        {
            return default;
        }

        if (offset >= NvmeRegister.Doorbells)
        {
            if (source.Length == sizeof(uint))
            {
                WriteDoorbell((uint)offset - NvmeRegister.Doorbells, BitConverter.ToUInt32(source));
            }

            return default;
        }

        for (int at = (int)((offset + 3) / 4 * 4); at + sizeof(uint) <= (int)offset + source.Length; at += sizeof(uint))
        {
            WriteRegister(at, BitConverter.ToUInt32(source[(at - (int)offset)..]));
        }

        return default;
    }

    /// <inheritdoc/>
    protected override ValueTask OnConfigWrittenAsync(uint offset, int count)
    {
        bool before = _usesVectors;
        _usesVectors = HasEnabledVectors;
        if (before != _usesVectors)
        {
            UpdatePin();
        }

        return default;
    }

    internal CompletionQueue? Completion(int id) =>
        (uint)id < (uint)_completions.Length ? Volatile.Read(ref _completions[id]) : null;

    internal SubmissionQueue? Submission(int id) =>
        (uint)id < (uint)_submissions.Length ? Volatile.Read(ref _submissions[id]) : null;

    /// <summary>Completions wait for the driver. From any thread.</summary>
    internal void Interrupt(int vector)
    {
        if (!_usesVectors)
        {
            UpdatePin();
        }
        else if (_options.HasMsix)
        {
            _ = Interrupts[InterruptKind.Msix].Trigger(vector);
        }
        else if ((Volatile.Read(ref _interruptMask) & 1) == 0)
        {
            _ = Interrupts[InterruptKind.Msi].Trigger(0);
        }
    }

    /// <summary>The pin is asserted while entries wait that the driver has not taken, unless it masked them.</summary>
    internal void UpdatePin()
    {
        lock (_pinLock)
        {
            bool isAsserted = !_usesVectors && (Volatile.Read(ref _interruptMask) & 1) == 0 && HasUnread();
            Interrupts.SetPin(isAsserted);
        }
    }

    internal void Raise(NvmeEvent kind) => Events.Raise(kind);

    /// <summary>What all queues did, those that are gone included.</summary>
    internal NvmeCounters SumCounters()
    {
        NvmeCounters sum = new();
        sum.Add(_ended);
        for (int i = 1; i < _submissions.Length; i++)
        {
            if (Submission(i) is { } queue)
            {
                sum.Add(queue.Counters);
            }
        }

        return sum;
    }

    private static void Check(IReadOnlyList<NvmeNamespace> namespaces, NvmeOptions options)
    {
        if (namespaces.Count is 0 or > MaxNamespaces)
        {
            throw new ArgumentException($"{namespaces.Count} namespaces: 1 to {MaxNamespaces}");
        }

        CheckText(options.Serial, NvmeOptions.SerialBytes, "serial");
        CheckText(options.Model, NvmeOptions.ModelBytes, "model");
        if (options.QueuePairs is < 1 or > NvmeOptions.MaxQueuePairs)
        {
            throw new ArgumentException($"{options.QueuePairs} queue pairs: 1 to {NvmeOptions.MaxQueuePairs}");
        }

        if (options.QueueSize is < 2 or > LargestQueue || !BitOperations.IsPow2(options.QueueSize))
        {
            throw new ArgumentException($"queue size {options.QueueSize}: a power of two from 2 to {LargestQueue}");
        }

        if (options.DoorbellStride is < 0 or > LargestStride || options.WorkerCount < 0)
        {
            throw new ArgumentException(
                $"doorbell stride {options.DoorbellStride}: 0 to {LargestStride}; workers: 0 or more");
        }
    }

    private static void CheckText(string text, int mostBytes, string name)
    {
        if (text.Length is 0 || text.Length > mostBytes || !Ascii.IsValid(text) || text.Any(char.IsControl))
        {
            throw new ArgumentException($"{name} '{text}': 1 to {mostBytes} ASCII characters");
        }
    }

    private static void Put(Span<byte> target, int offset, ulong value) =>
        BitConverter.TryWriteBytes(target[offset..], value);

    private static void Put(Span<byte> target, int offset, uint value) =>
        BitConverter.TryWriteBytes(target[offset..], value);

    private ulong Capabilities =>
        (ulong)(_options.QueueSize - 1)
        | (1UL << 16)
        | ((ulong)TimeoutHalfSeconds << 24)
        | ((ulong)_options.DoorbellStride << 32)
        | (1UL << 37)
        | ((ulong)MaxPageShift << 52);

    private void AddBars()
    {
        uint doorbells = (uint)((QueuePairs + 1) * 2 * StrideBytes);
        uint size = BitOperations.RoundUpToPowerOf2(NvmeRegister.Doorbells + doorbells);
        AddBar(new PciBar(RegistersBar, PciBarKind.Memory64, Math.Max(size, 0x4000u))
        {
            Doorbells = new ShadowedDoorbells(this),
        });
        if (!_options.HasMsix)
        {
            AddCapability(new MsiCapability(1, hasMasks: false));
            return;
        }

        int vectors = VectorCount;
        uint pending = Math.Max(BitOperations.RoundUpToPowerOf2((uint)vectors * 16), 0x800u);
        AddBar(new PciBar(VectorsBar, PciBarKind.Memory32, pending * 2));
        AddCapability(new MsixCapability(vectors, VectorsBar, 0, pending));
    }

    private void WriteRegister(int offset, uint value)
    {
        switch (offset)
        {
            case NvmeRegister.InterruptMaskSet:
                Interlocked.Or(ref _interruptMask, value);
                UpdatePin();
                break;
            case NvmeRegister.InterruptMaskClear:
                Interlocked.And(ref _interruptMask, ~value);
                UpdatePin();
                InterruptForUnread(value);
                break;
            case NvmeRegister.Configuration:
                WriteConfiguration(new NvmeConfiguration(value & NvmeConfiguration.Writable));
                break;
            case >= NvmeRegister.AdminQueueAttributes and < NvmeRegister.AdminCompletionQueue + sizeof(ulong)
                when !_configuration.IsEnabled:
                WriteAdminQueue(offset, value);
                break;
        }
    }

    /// <summary>The mask counts for MSI, too: what came while it was set is told now.</summary>
    private void InterruptForUnread(uint unmasked)
    {
        if (_usesVectors && !_options.HasMsix && (unmasked & 1) != 0 && HasUnread())
        {
            Interrupt(0);
        }
    }

    private void WriteAdminQueue(int offset, uint value)
    {
        const uint pageMask = 0xfffff000;
        const ulong low = uint.MaxValue;
        switch (offset)
        {
            case NvmeRegister.AdminQueueAttributes:
                _adminAttributes = value & 0x0fff0fff;
                break;
            case NvmeRegister.AdminSubmissionQueue:
                _adminSubmission = (_adminSubmission & ~low) | (value & pageMask);
                break;
            case NvmeRegister.AdminSubmissionQueue + sizeof(uint):
                _adminSubmission = (_adminSubmission & low) | ((ulong)value << 32);
                break;
            case NvmeRegister.AdminCompletionQueue:
                _adminCompletion = (_adminCompletion & ~low) | (value & pageMask);
                break;
            case NvmeRegister.AdminCompletionQueue + sizeof(uint):
                _adminCompletion = (_adminCompletion & low) | ((ulong)value << 32);
                break;
        }
    }

    private void WriteDoorbell(uint offset, uint value)
    {
        if (offset % StrideBytes != 0 || (Status & NvmeControllerStatus.Ready) == 0)
        {
            return;
        }

        int index = (int)(offset / (uint)StrideBytes);
        int id = index / 2;
        bool isCompletion = index % 2 != 0;
        uint size = id == 0
            ? _admin?.Size(isCompletion) ?? 0
            : (isCompletion ? Completion(id)?.Size : Submission(id)?.Size) ?? 0;
        if (size == 0)
        {
            Raise(NvmeEvent.InvalidDoorbellRegister);
        }
        else if (value >= size)
        {
            Raise(NvmeEvent.InvalidDoorbellValue);
        }
        else if (id == 0)
        {
            _admin?.WriteDoorbell(isCompletion, value);
        }
        else if (isCompletion)
        {
            Completion(id)?.WriteHead(value);
        }
        else
        {
            Submission(id)?.WriteTail(value);
        }
    }

    private bool HasUnread()
    {
        if (_admin is { HasUnread: true })
        {
            return true;
        }

        for (int i = 1; i < _completions.Length; i++)
        {
            if (Completion(i) is { HasUnread: true })
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// The doorbells that a client may ring by eventfds: those of queues whose values stand in memory. An eventfd tells
    /// no value, so without the buffers there are none.
    /// </summary>
    private sealed class ShadowedDoorbells(NvmeController controller) : IReadOnlyList<PciDoorbell>
    {
        public int Count => All().Count;

        public PciDoorbell this[int index] => All()[index];

        public IEnumerator<PciDoorbell> GetEnumerator() => All().GetEnumerator();

        System.Collections.IEnumerator System.Collections.IEnumerable.GetEnumerator() => GetEnumerator();

        private List<PciDoorbell> All()
        {
            List<PciDoorbell> all = [];
            for (int id = 1; id <= controller.QueuePairs && controller.HasShadowDoorbells; id++)
            {
                if (controller.Submission(id) is { } queue)
                {
                    ulong offset = (ulong)(NvmeRegister.Doorbells + (id * 2 * controller.StrideBytes));
                    all.Add(new PciDoorbell(offset, sizeof(uint), queue.Worker.Bell));
                }
            }

            return all;
        }
    }
}

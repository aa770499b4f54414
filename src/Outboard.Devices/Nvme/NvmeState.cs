// A controller's offer and state in a migration stream; all numbers little-endian.
//
// Offer: 0 queue pairs u32, 4 entries of the largest queue u32, 8 doorbell stride u32, 12 MSI-X vectors u32, 16
// namespaces u32; for each namespace 32 bytes: 0 identity (16 bytes, made of the serial number), 16 blocks u64, 24
// bytes of a block u32, 28 read-only u32
//
// State, as records of State/DeviceStateFormat:
//   "pcfg" configuration space of PCI   "msix" MSI-X table, if there is one   "wcac" write cache
//   "regs" 0 INTMS u32, 4 CC u32, 8 CSTS u32, 12 AQA u32, 16 ASQ u64, 24 ACQ u64
//   "errs" ErrorLog.Save
//   "hlth" seconds powered on, then NvmeCounters.Save: i64 each
//   "admn" (while enabled) doorbells of submission and completion queue, head, tail, taken, phase: u32 each
//   "aers" identifiers of event requests, u16 each   "feat" FeatureTable.SaveAll "evnt" EventLog.Save
//   "shdw" (while doorbells are in memory) values u64, events u64
//   "cNNN" completion queue: 0 size u32, 4 vector u32, 8 flags u32 (1 interrupts, 2 phase), 12 tail u32, 16 head u32,
//          20 doorbell u32, 24 address u64
//   "sNNN" submission queue: 0 size u32, 4 completion queue u32, 8 head u32, 12 tail u32, 16 doorbell u32, 20 zero u32,
//          24 address u64, then the places of commands that were aborted, u32 each
//
// Everything is checked before anything is made.
using System.Globalization;
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Admin;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Nvme;

/// <summary>Writes and reads what moves.</summary>
internal static class NvmeState
{
    internal const int MaxOfferBytes = OfferHeadBytes + (NvmeController.MaxNamespaces * NamespaceBytes);

    /// <summary>Type of the stream: this is no virtio device.</summary>
    internal const VirtioDeviceId Kind = (VirtioDeviceId)0x6e76;

    private const int OfferHeadBytes = 20;
    private const int NamespaceBytes = 32;
    private const int RegisterBytes = 32;
    private const int AdminWords = 6;
    private const int QueueBytes = 32;
    private const uint InterruptsFlag = 1;

    /// <summary>Longer than any controller works: a thousand years.</summary>
    private const long MaxSeconds = 1000L * 366 * 24 * 60 * 60;

    private const uint PhaseFlag = 2;

    internal static byte[] MakeOffer(NvmeController controller)
    {
        List<byte> offer = [];
        foreach (int number in (ReadOnlySpan<int>)[
            controller.QueuePairs, controller.Options.QueueSize, controller.StrideBytes,
            controller.Interrupts.Msix?.VectorCount ?? 0, controller.Namespaces.Count])
        {
            offer.AddRange(BitConverter.GetBytes(number));
        }

        for (int i = 0; i < controller.Namespaces.Count; i++)
        {
            NvmeNamespace place = controller.Namespaces[i];
            offer.AddRange(NvmeNamespace.Uuid(controller.Options.Serial, (uint)i + 1));
            offer.AddRange(BitConverter.GetBytes(place.BlockCount));
            offer.AddRange(BitConverter.GetBytes(place.BlockSize));
            offer.AddRange(BitConverter.GetBytes(place.IsReadOnly ? 1 : 0));
        }

        return [.. offer];
    }

    /// <summary>What of an offer does not fit; null when all does.</summary>
    internal static string? FindMismatch(NvmeController controller, ReadOnlySpan<byte> offer)
    {
        ReadOnlySpan<byte> here = MakeOffer(controller);
        if (offer.Length < OfferHeadBytes || offer.Length % NamespaceBytes != OfferHeadBytes % NamespaceBytes)
        {
            return $"{offer.Length} bytes that are no offer of a controller";
        }

        string[] names =
            ["queue pairs", "entries of a queue", "bytes from doorbell to doorbell", "MSI-X vectors", "namespaces"];
        ReadOnlySpan<int> theirs = MemoryMarshal.Cast<byte, int>(offer[..OfferHeadBytes]);
        ReadOnlySpan<int> ours = MemoryMarshal.Cast<byte, int>(here[..OfferHeadBytes]);
        for (int i = 0; i < names.Length; i++)
        {
            if (theirs[i] != ours[i])
            {
                return $"{names[i]}: {theirs[i]} there, {ours[i]} here";
            }
        }

        for (int at = OfferHeadBytes, number = 1; at < here.Length; at += NamespaceBytes, number++)
        {
            if (at + NamespaceBytes > offer.Length)
            {
                return $"namespace {number} is missing";
            }

            (string There, string Here) both = (Describe(offer[at..]), Describe(here[at..]));
            if (both.There != both.Here)
            {
                return $"namespace {number}: {both.There} there, {both.Here} here";
            }
        }

        return offer.Length == here.Length ? null : $"{offer.Length} bytes, {here.Length} are due";
    }

    internal static byte[] Save(NvmeSnapshot snapshot)
    {
        DeviceStateWriter writer = new(Kind);
        writer.Write("pcfg", snapshot.Config);
        if (snapshot.Vectors.Length > 0)
        {
            writer.Write("msix", snapshot.Vectors);
        }

        writer.Write("wcac", snapshot.HasWriteCache ? 1u : 0);
        writer.Write("regs", [
            .. Bytes(snapshot.InterruptMask, snapshot.Configuration.Value, (uint)snapshot.Status,
                snapshot.AdminAttributes),
            .. Bytes(snapshot.AdminSubmission, snapshot.AdminCompletion),
        ]);
        writer.Write("evnt", Bytes(snapshot.Events));
        writer.Write("errs", snapshot.Errors);
        writer.Write("hlth", Bytes([(long)snapshot.PoweredOn.TotalSeconds, .. snapshot.Counters]));
        if (snapshot.Admin is not { } admin)
        {
            return writer.Finish();
        }

        writer.Write("admn", Bytes(
            admin.SubmissionRegister, admin.CompletionRegister, admin.Head, admin.Tail, admin.Taken, admin.Phase));
        writer.Write("aers", Bytes(admin.EventRequests));
        writer.Write("feat", Bytes(admin.Features));
        if (snapshot.Shadow is { } shadow)
        {
            writer.Write("shdw", Bytes(shadow.Values, shadow.Events));
        }

        foreach (NvmeCompletionRecord one in snapshot.Completions)
        {
            uint flags = (one.HasInterrupts ? InterruptsFlag : 0) | (one.Phase != 0 ? PhaseFlag : 0);
            writer.Write(NameOf('c', one.Id), [
                .. Bytes(one.Size, (uint)one.Vector, flags, one.Tail, one.Head, one.HeadRegister),
                .. Bytes(one.Address),
            ]);
        }

        foreach (NvmeSubmissionRecord one in snapshot.Submissions)
        {
            writer.Write(NameOf('s', one.Id), [
                .. Bytes(one.Size, (uint)one.Completion, one.Head, one.Tail, one.TailRegister, 0u),
                .. Bytes(one.Address), .. Bytes(one.Aborted),
            ]);
        }

        return writer.Finish();
    }

    /// <summary>Reads and checks a state for a controller; changes nothing.</summary>
    /// <exception cref="DeviceStateException">It does not fit.</exception>
    internal static NvmeSnapshot Load(NvmeController controller, ReadOnlySpan<byte> stream)
    {
        DeviceStateReader reader = new(Kind, stream);
        byte[] config = Exactly(reader, "pcfg", controller.Config.SizeBytes);
        byte[] vectors =
            controller.Interrupts.Msix?.Table is { } table ? Exactly(reader, "msix", table.SavedBytes) : [];
        byte[] registers = Exactly(reader, "regs", RegisterBytes);
        uint[] words = Words<uint>(registers);
        uint[] events = Words<uint>(reader.ReadBytes("evnt", DeviceStateFormat.MaxBytes).ToArray());
        byte[] errors = reader.ReadBytes("errs", ErrorLog.MaxSavedBytes).ToArray();
        long[] health = Words<long>(Exactly(reader, "hlth", (1 + NvmeCounters.SavedValues) * sizeof(long)));
        NvmeConfiguration configuration = new(words[1]);
        const NvmeControllerStatus known = NvmeControllerStatus.Ready | NvmeControllerStatus.Fatal
            | NvmeControllerStatus.ShutdownMask;
        Require((words[1] & ~NvmeConfiguration.Writable) == 0, "CC", words[1]);
        Require(((NvmeControllerStatus)words[2] & ~known) == 0, "CSTS", words[2]);
        Require((words[3] & ~0x0fff0fffu) == 0, "AQA", words[3]);
        Require(EventLog.IsValid(events, controller.Namespaces.Count), "evnt", (ulong)events.Length);
        Require(ErrorLog.IsValid(errors), "errs", (ulong)errors.Length);
        Require(Array.TrueForAll(health, value => value >= 0) && health[0] <= MaxSeconds, "hlth", (ulong)health[0]);
        bool isReady = reader.TryRead("admn", AdminWords * sizeof(uint), out ReadOnlyMemory<byte> admin);
        Require(
            !isReady || (configuration.IsEnabled && NvmeController.Supports(configuration)), "CC", configuration.Value);
        NvmeSnapshot snapshot = new()
        {
            Config = config,
            Vectors = vectors,
            InterruptMask = words[0],
            Configuration = configuration,
            Status = (NvmeControllerStatus)words[2],
            AdminAttributes = words[3],
            AdminSubmission = BitConverter.ToUInt64(registers, 16),
            AdminCompletion = BitConverter.ToUInt64(registers, 24),
            HasWriteCache = reader.ReadNumber("wcac", 1) != 0,
            Events = events,
            Errors = errors,
            Counters = health[1..],
            PoweredOn = TimeSpan.FromSeconds(health[0]),
            Admin = null,
            Shadow = null,
            Completions = [],
            Submissions = [],
        };
        if (isReady)
        {
            snapshot = LoadQueues(controller, reader, snapshot, Words<uint>(admin.ToArray()));
        }

        reader.RequireAllRead();
        return snapshot;
    }

    private static NvmeSnapshot LoadQueues(
        NvmeController controller, DeviceStateReader reader, NvmeSnapshot snapshot, uint[] admin)
    {
        uint submissions = snapshot.AdminSubmissionSize;
        uint completions = snapshot.AdminCompletionSize;
        Require(submissions >= 2 && completions >= 2, "AQA", snapshot.AdminAttributes);
        Require(admin[0] < submissions && admin[2] < submissions, "admin submission queue", admin[2]);
        RequireBetween(completions, admin[4], admin[1], admin[3], "admin completion queue");
        Require(admin[5] <= 1, "admin phase", admin[5]);
        ushort[] requests = Words<ushort>(
            reader.ReadBytes("aers", AdminQueue.MaxEventRequests * sizeof(ushort)).ToArray());
        uint[] features = Words<uint>(reader.ReadBytes("feat", DeviceStateFormat.MaxBytes).ToArray());
        Require(new FeatureTable(controller).TryLoad(features), "feat", (ulong)features.Length);
        bool hasShadow = reader.TryRead("shdw", 2 * sizeof(ulong), out ReadOnlyMemory<byte> places);
        ulong[] shadow = Words<ulong>(places.ToArray());
        List<NvmeCompletionRecord> completionQueues = [];
        List<NvmeSubmissionRecord> submissionQueues = [];
        for (int id = 1; id <= (int)features[0]; id++)
        {
            if (reader.TryRead(NameOf('c', id), QueueBytes, out ReadOnlyMemory<byte> record))
            {
                completionQueues.Add(LoadCompletion(controller, id, record.ToArray()));
            }
        }

        for (int id = 1; id <= (int)features[0]; id++)
        {
            if (reader.Has(NameOf('s', id)))
            {
                byte[] record = reader.ReadBytes(NameOf('s', id), DeviceStateFormat.MaxBytes).ToArray();
                NvmeSubmissionRecord one = LoadSubmission(controller, id, record);
                Require(completionQueues.Exists(queue => queue.Id == one.Completion), "queue", (ulong)one.Completion);
                submissionQueues.Add(one);
            }
        }

        return snapshot with
        {
            Admin = new AdminPosition(
                admin[0], admin[1], admin[2], admin[3], admin[4], admin[5], requests, features),
            Shadow = hasShadow ? (shadow[0], shadow[1]) : null,
            Completions = completionQueues,
            Submissions = submissionQueues,
        };
    }

    private static NvmeCompletionRecord LoadCompletion(NvmeController controller, int id, byte[] record)
    {
        uint[] words = Words<uint>(record);
        ulong address = BitConverter.ToUInt64(record, 24);
        RequireRing(controller, words[0], address);
        RequireBetween(words[0], words[4], words[5], words[3], $"completion queue {id}");
        Require((words[2] & ~(InterruptsFlag | PhaseFlag)) == 0, "flags", words[2]);

        // of a queue without interrupts the vector is whatever the driver wrote there
        int vectors = (words[2] & InterruptsFlag) != 0 ? controller.VectorCount : ushort.MaxValue + 1;
        Require(words[1] < (uint)vectors, "vector", words[1]);
        return new NvmeCompletionRecord(
            id, words[0], address, (int)words[1], (words[2] & InterruptsFlag) != 0, words[3], words[4], words[5],
            (words[2] & PhaseFlag) != 0 ? 1u : 0);
    }

    private static NvmeSubmissionRecord LoadSubmission(NvmeController controller, int id, byte[] record)
    {
        Require(record.Length >= QueueBytes && record.Length % sizeof(uint) == 0, "queue", (ulong)record.Length);
        uint[] words = Words<uint>(record);
        ulong address = BitConverter.ToUInt64(record, 24);
        RequireRing(controller, words[0], address);
        uint[] aborted = words[(QueueBytes / sizeof(uint))..];
        bool isInside = words[2] < words[0] && words[3] < words[0] && words[4] < words[0]
            && Array.TrueForAll(aborted, place => place < words[0]);
        Require(isInside, $"submission queue {id}: head", words[2]);
        Require(words[1] <= (uint)controller.QueuePairs, "completion queue", words[1]);
        return new NvmeSubmissionRecord(
            id, words[0], address, (int)words[1], words[2], words[3], words[4], aborted);
    }

    private static void RequireRing(NvmeController controller, uint size, ulong address)
    {
        Require(size >= 2 && size <= (uint)controller.Options.QueueSize, "entries of a queue", size);
        Require((address & 0xfff) == 0, "address of a queue", address);
    }

    /// <summary>The driver's doorbell lies between what is known to be taken and the tail.</summary>
    private static void RequireBetween(uint size, uint head, uint doorbell, uint tail, string name)
    {
        bool isInside = head < size && doorbell < size && tail < size;
        Require(isInside && Distance(head, doorbell, size) <= Distance(head, tail, size), name, doorbell);
    }

    private static uint Distance(uint from, uint to, uint size) => to >= from ? to - from : to + size - from;

    private static byte[] Exactly(DeviceStateReader reader, string name, int bytes) =>
        reader.TryRead(name, bytes, out ReadOnlyMemory<byte> record)
            ? record.ToArray()
            : throw new DeviceStateException($"record '{name}' is missing");

    private static string NameOf(char kind, int id) => kind + id.ToString("x3", CultureInfo.InvariantCulture);

    private static string Describe(ReadOnlySpan<byte> place) => string.Create(
        CultureInfo.InvariantCulture,
        $"{Convert.ToHexStringLower(place[..16])} with {BitConverter.ToUInt64(place[16..])} blocks of {
            BitConverter.ToUInt32(place[24..])} bytes{(place[28] != 0 ? ", read-only" : "")}");

    private static byte[] Bytes<T>(params T[] values)
        where T : unmanaged => MemoryMarshal.AsBytes<T>(values).ToArray();

    private static T[] Words<T>(byte[] bytes)
        where T : unmanaged
    {
        T[] values = MemoryMarshal.Cast<byte, T>(bytes).ToArray();
        return MemoryMarshal.AsBytes<T>(values).Length == bytes.Length
            ? values
            : throw new DeviceStateException($"{bytes.Length} bytes are cut");
    }

    private static void Require(bool condition, string field, ulong value)
    {
        if (!condition)
        {
            throw new DeviceStateException($"{field}: 0x{value:x} does not suit this controller");
        }
    }
}

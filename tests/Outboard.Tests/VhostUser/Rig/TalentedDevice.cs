// A device with everything that only devices of some kinds have: crypto sessions, shared objects, a display.
using System.Collections.Concurrent;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.Tests.VhostUser;

internal sealed class TalentedDevice : FakeDevice, ICryptoSessions, ISharedObjectDevice, IDisplayDevice
{
    public const ulong MostSessions = 3;

    private ulong _sessions;

    public List<CryptoSessionParameters> Created { get; } = [];

    public HashSet<ulong> Sessions { get; } = [];

    /// <summary>Objects that it exports, and the first byte of each.</summary>
    public ConcurrentDictionary<Guid, byte> Objects { get; } = new();

    public ISharedObjectDirectory? Directory { get; private set; }

    public DisplayConnection? Display { get; private set; }

    public ulong? CreateSession(CryptoSessionParameters parameters)
    {
        Created.Add(parameters);
        if (Sessions.Count == (int)MostSessions)
        {
            return null;
        }

        Sessions.Add(++_sessions);
        return _sessions;
    }

    public bool CloseSession(ulong session) => Sessions.Remove(session);

    public SharedMemory? Export(Guid name) => Objects.TryGetValue(name, out byte first) ? MemoryWith(first) : null;

    public void UseDirectory(ISharedObjectDirectory? directory) => Directory = directory;

    public void UseDisplay(DisplayConnection connection)
    {
        Display?.DisposeAsync().AsTask().Wait();
        Display = connection;
    }

    public static SharedMemory MemoryWith(byte first)
    {
        FileSharedMemory memory = new(MemFd.Create("outboard-test-object", 4096));
        using MemoryMapping mapping = memory.Map(0, 4096);
        mapping.Segment.Span[0] = first;
        return memory;
    }

    public static byte FirstByte(SharedMemory memory)
    {
        using MemoryMapping mapping = memory.Map(0, 4096);
        return mapping.Segment.Span[0];
    }
}

/// <summary>Tests of a request that a plain device does not serve.</summary>
public abstract class TalentedRequestTest : RequestTest
{
    private protected TalentedDevice Device => (TalentedDevice)Rig.Device;

    private protected override FakeDevice CreateDevice() => new TalentedDevice();

    private protected override Task PrepareAsync(WirePeer peer) =>
        peer.NegotiateAsync(WirePeer.AllProtocolFeatures | Gate);
}

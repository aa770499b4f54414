// What a driver relies on, so that each back-end must have it. A digest over what is in use decides whether a successor
// may take over: it offers at least that, so what it has is cut down to what is in use and must give the same digest.
// When it does not, the fields are looked at one by one to say why.
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>What a driver relies on, and each back-end must have.</summary>
internal sealed record BackendIdentity(
    ulong Features, ProtocolFeatures ProtocolFeatures, int QueueCount, ulong MemorySlots, byte[] Config)
{
    private const ulong NegotiatedAnew = VirtioFeatures.LogAll;

    /// <summary>The device's shared memory regions, which a machine has shown to its guest.</summary>
    internal IReadOnlyList<SharedRegion> Regions { get; init; } = [];

    /// <summary>The type of the device and its queues' largest sizes, where LIFE_CYCLE tells them.</summary>
    internal string Kind { get; init; } = string.Empty;

    /// <summary>SHA-256 over all fields, in hexadecimal digits.</summary>
    internal string Digest
    {
        get
        {
            StringBuilder text = new();
            text.Append(CultureInfo.InvariantCulture, $"features {Features & ~NegotiatedAnew:x}\n")
                .Append(CultureInfo.InvariantCulture, $"protocol features {(ulong)ProtocolFeatures:x}\n")
                .Append(CultureInfo.InvariantCulture, $"queues {QueueCount}\nmemory slots {MemorySlots}\n")
                .Append(CultureInfo.InvariantCulture, $"config {Convert.ToHexString(Config)}\n");
            text.Append(CultureInfo.InvariantCulture, $"device {Kind}\n");
            foreach (SharedRegion region in Regions)
            {
                text.Append(CultureInfo.InvariantCulture, $"shared memory {region.Id} {region.SizeBytes:x}\n");
            }

            return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())));
        }
    }

    /// <summary>Reads it from a back-end after negotiation.</summary>
    internal static async Task<BackendIdentity> ReadAsync(
        VhostUserFrontend frontend, int configSizeBytes, CancellationToken cancellation)
    {
        ulong slots = frontend.Has(ProtocolFeatures.ConfigureMemSlots)
            ? await frontend.GetMaxMemSlotsAsync(cancellation).ConfigureAwait(false) : 0;
        byte[] config = await ReadConfigAsync(frontend, configSizeBytes, cancellation).ConfigureAwait(false);
        return new BackendIdentity(
            frontend.Features, frontend.ProtocolFeatures, frontend.QueueCount, slots, config)
        {
            Regions = frontend.SharedRegions,
            Kind = await ReadKindAsync(frontend, cancellation).ConfigureAwait(false),
        };
    }

    private static async Task<string> ReadKindAsync(VhostUserFrontend frontend, CancellationToken cancellation)
    {
        if (!frontend.Has(ProtocolFeatures.LifeCycle))
        {
            return string.Empty;
        }

        IdentityPayload identity = await frontend.GetIdentityAsync(cancellation).ConfigureAwait(false);
        StringBuilder kind = new($"{(VirtioDeviceId)identity.DeviceId}, queues of");
        for (int i = 0; i < Math.Min((int)identity.QueueCount, frontend.QueueCount); i++)
        {
            int limit = await frontend.GetQueueLimitAsync(i, cancellation).ConfigureAwait(false);
            kind.Append(CultureInfo.InvariantCulture, $" {limit}");
        }

        return kind.ToString();
    }

    /// <summary>The configuration space's first bytes; none when it is not told, or none are wanted.</summary>
    internal static async Task<byte[]> ReadConfigAsync(
        VhostUserFrontend frontend, int configSizeBytes, CancellationToken cancellation)
    {
        if (configSizeBytes > 0 && frontend.Has(ProtocolFeatures.LifeCycle))
        {
            IdentityPayload identity = await frontend.GetIdentityAsync(cancellation).ConfigureAwait(false);
            int size = (int)Math.Min(identity.ConfigBytes, (uint)configSizeBytes);
            return await frontend.ReadWholeConfigAsync(size, cancellation).ConfigureAwait(false);
        }

        return configSizeBytes > 0 && frontend.Has(ProtocolFeatures.Config)
            ? await frontend.GetConfigAsync(0, configSizeBytes, cancellation).ConfigureAwait(false) : [];
    }

    /// <summary>The same without the bytes that the driver writes: they are told again, whatever they are.</summary>
    internal BackendIdentity Without(IReadOnlyList<(uint Offset, byte[] Bytes)> writes)
    {
        byte[] config = [.. Config];
        foreach ((uint offset, byte[] bytes) in writes)
        {
            for (int i = 0; i < bytes.Length && offset + i < config.Length; i++)
            {
                config[offset + i] = 0;
            }
        }

        return this with { Config = config };
    }

    /// <summary>Checks a successor. More than before is no hindrance: it is not used.</summary>
    /// <exception cref="BackendMismatchException">It lacks something, or its configuration differs.</exception>
    internal void Check(BackendIdentity successor)
    {
        if (Digest == successor.CutDownTo(this).Digest)
        {
            return;
        }

        ulong features = Features & ~successor.Features & ~NegotiatedAnew;
        Expect("features", features == 0,
            $"0x{Features:x} are in use, 0x{features:x} of them are not offered any more");
        ProtocolFeatures missing = ProtocolFeatures & ~successor.ProtocolFeatures;
        Expect("protocol features", missing == 0,
            $"0x{(ulong)ProtocolFeatures:x} are in use, {missing} is not offered any more");
        Expect("queues", successor.QueueCount >= QueueCount, $"{successor.QueueCount}, there were {QueueCount}");
        Expect("device", Kind == successor.Kind, $"{successor.Kind}, it was {Kind}");
        Expect("memory slots", successor.MemorySlots >= MemorySlots,
            $"{successor.MemorySlots}, there were {MemorySlots}");
        Expect("shared memory", Regions.SequenceEqual(successor.Regions),
            $"[{string.Join(", ", successor.Regions)}], there were [{string.Join(", ", Regions)}]");
        int differing = Config.AsSpan().CommonPrefixLength(successor.Config);
        Expect("config", false, $"differs from byte {differing} on");
    }

    private BackendIdentity CutDownTo(BackendIdentity used) => this with
    {
        Features = Features & used.Features,
        ProtocolFeatures = ProtocolFeatures & used.ProtocolFeatures,
        QueueCount = Math.Min(QueueCount, used.QueueCount),
        MemorySlots = Math.Min(MemorySlots, used.MemorySlots),
    };

    private static void Expect(string field, bool holds, string problem)
    {
        if (!holds)
        {
            throw new BackendMismatchException(field, problem);
        }
    }
}

// Features: what a driver may ask for and set. Nothing is kept over a controller reset; nothing can be saved.
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

/// <summary>The features of an enabled controller. Used by the admin queue.</summary>
internal sealed class FeatureTable
{
    private const uint Save = 1u << 31;
    private const uint DefaultArbitration = 0x06;
    private const uint DefaultOverTemperature = 343;
    private const int ThresholdKinds = 2;
    private const int ThresholdSensors = 16;

    private readonly NvmeController _controller;
    private readonly Dictionary<(NvmeFeature Feature, uint Place), uint> _values = [];

    internal FeatureTable(NvmeController controller)
    {
        _controller = controller;
        GrantedQueues = controller.QueuePairs;
    }

    /// <summary>Highest queue identifier.</summary>
    internal int GrantedQueues { get; private set; }

    private int Vectors => _controller.VectorCount;

    /// <summary>For another process: granted queues; then for each value feature, place, value.</summary>
    internal uint[] SaveAll() =>
    [
        (uint)GrantedQueues,
        .. _values.SelectMany(one => (uint[])[(uint)one.Key.Feature, one.Key.Place, one.Value]),
    ];

    /// <summary>Takes over what another process had.</summary>
    /// <returns>False when that cannot be: nothing has changed then.</returns>
    internal bool TryLoad(ReadOnlySpan<uint> saved)
    {
        const int words = 3;
        if (saved.Length % words != 1 || saved[0] - 1 >= (uint)_controller.QueuePairs)
        {
            return false;
        }

        Dictionary<(NvmeFeature Feature, uint Place), uint> values = [];
        for (ReadOnlySpan<uint> rest = saved[1..]; !rest.IsEmpty; rest = rest[words..])
        {
            NvmeFeature feature = (NvmeFeature)rest[0];
            bool isPlace = feature switch
            {
                NvmeFeature.InterruptVector => rest[1] < (uint)Vectors,
                NvmeFeature.TemperatureThreshold => rest[1] is 0 or ThresholdSensors,
                _ => rest[1] == 0,
            };
            if (rest[0] > byte.MaxValue || !IsKnown(feature) || !isPlace || !values.TryAdd((feature, rest[1]), rest[2]))
            {
                return false;
            }
        }

        GrantedQueues = (int)saved[0];
        foreach (((NvmeFeature Feature, uint Place) key, uint value) in values)
        {
            _values[key] = value;
        }

        return true;
    }

    internal (NvmeStatus Status, uint Result) Get(in NvmeCommand command)
    {
        NvmeFeature feature = (NvmeFeature)(byte)command.Word10;
        uint select = (command.Word10 >> 8) & 7;
        if (!IsKnown(feature) || select > 3 || !TryPlace(feature, command.Word11, out uint place))
        {
            return (NvmeStatus.InvalidField, 0);
        }

        const uint changeable = 1 << 2;
        return (NvmeStatus.Success, select switch
        {
            0 => Current(feature, place),
            3 => changeable,
            _ => Default(feature, place),
        });
    }

    internal (NvmeStatus Status, uint Result) Set(in NvmeCommand command)
    {
        NvmeFeature feature = (NvmeFeature)(byte)command.Word10;
        if (!IsKnown(feature))
        {
            return (NvmeStatus.InvalidField, 0);
        }

        if ((command.Word10 & Save) != 0)
        {
            return (NvmeStatus.FeatureNotSaveable, 0);
        }

        uint value = command.Word11;
        return feature switch
        {
            NvmeFeature.QueueCount => SetQueueCount(value),
            NvmeFeature.VolatileWriteCache => (SetWriteCache((value & 1) != 0), 0),
            NvmeFeature.EventConfiguration => (SetEvents(value), 0),
            NvmeFeature.PowerManagement when (value & 0x1f) != 0 => (NvmeStatus.InvalidField, 0),
            NvmeFeature.ErrorRecovery when value > ushort.MaxValue => (NvmeStatus.InvalidField, 0),
            _ => (Store(feature, value), 0),
        };
    }

    private static bool IsKnown(NvmeFeature feature) =>
        feature is >= NvmeFeature.Arbitration and <= NvmeFeature.EventConfiguration and not (NvmeFeature)3;

    private (NvmeStatus Status, uint Result) SetQueueCount(uint value)
    {
        uint submissions = value & 0xffff;
        uint completions = value >> 16;
        if (submissions == ushort.MaxValue || completions == ushort.MaxValue)
        {
            return (NvmeStatus.InvalidField, 0);
        }

        for (int id = 1; id <= _controller.QueuePairs; id++)
        {
            if (_controller.Completion(id) is not null || _controller.Submission(id) is not null)
            {
                return (NvmeStatus.CommandSequenceError, 0);
            }
        }

        // As many of each as there are of the kind that the driver wants more of, so that one limit does.
        GrantedQueues = (int)Math.Min(Math.Max(submissions, completions) + 1, (uint)_controller.QueuePairs);
        return (NvmeStatus.Success, QueueCount());
    }

    private NvmeStatus SetWriteCache(bool isOn)
    {
        bool before = _controller.HasWriteCache;
        _controller.HasWriteCache = isOn;

        // From here on a completed write is durable; so must be those before.
        return isOn || !before || _controller.FlushAll() ? NvmeStatus.Success : NvmeStatus.InternalError;
    }

    private NvmeStatus SetEvents(uint value)
    {
        // health warnings cannot come; they may be asked for
        const uint known = 0xff | EventLog.NamespaceNotices;
        if ((value & ~known) != 0)
        {
            return NvmeStatus.InvalidField;
        }

        _controller.Events.Configuration = value;
        return NvmeStatus.Success;
    }

    private NvmeStatus Store(NvmeFeature feature, uint value)
    {
        if (!TryPlace(feature, value, out uint place))
        {
            return NvmeStatus.InvalidField;
        }

        _values[(feature, place)] = feature switch
        {
            NvmeFeature.TemperatureThreshold => value & 0xffff,
            NvmeFeature.WriteAtomicity => value & 1,
            NvmeFeature.InterruptCoalescing => value & 0xffff,
            NvmeFeature.InterruptVector => value & 0x1ffff,
            _ => value,
        };
        return NvmeStatus.Success;
    }

    /// <summary>What a feature has several of: vectors, and thresholds.</summary>
    private bool TryPlace(NvmeFeature feature, uint value, out uint place)
    {
        place = 0;
        switch (feature)
        {
            case NvmeFeature.InterruptVector:
                place = value & 0xffff;
                return place < (uint)Vectors;
            case NvmeFeature.TemperatureThreshold:
                uint sensor = (value >> 16) & 0xf;
                uint kind = (value >> 20) & 3;

                // sensor 0 is the composite temperature, the only one; setting may name all (15)
                place = kind * ThresholdSensors;
                return kind < ThresholdKinds && sensor is 0 or 15;
            default:
                return true;
        }
    }

    private uint Current(NvmeFeature feature, uint place) => feature switch
    {
        NvmeFeature.QueueCount => QueueCount(),
        NvmeFeature.VolatileWriteCache => _controller.HasWriteCache ? 1u : 0,
        NvmeFeature.EventConfiguration => _controller.Events.Configuration,
        _ => _values.TryGetValue((feature, place), out uint value) ? value : Default(feature, place),
    };

    private uint Default(NvmeFeature feature, uint place) => feature switch
    {
        NvmeFeature.Arbitration => DefaultArbitration,
        NvmeFeature.TemperatureThreshold => place == 0 ? DefaultOverTemperature : 0,
        NvmeFeature.VolatileWriteCache => _controller.Options.WriteCache ? 1u : 0,
        NvmeFeature.QueueCount => (uint)((_controller.QueuePairs - 1) * 0x10001),
        NvmeFeature.InterruptVector => place,
        _ => 0,
    };

    private uint QueueCount() => (uint)((GrantedQueues - 1) * 0x10001);
}

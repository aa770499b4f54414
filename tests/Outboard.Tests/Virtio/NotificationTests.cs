// No kick and no call is lost, in whatever order the steps of driver and device come.
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class NotificationTests
{
    private const ulong Split = RawRing.FeatureVersion1;
    private const ulong Packed = RawRing.FeatureVersion1 | RawRing.FeaturePacked;
    private const ulong EventIndex = RawRing.FeatureEventIndex;

    [Theory]
    [InlineData(2, Split, 2, 1, 0)]
    [InlineData(2, Split | EventIndex, 2, 1, 0)]
    [InlineData(1, Split | EventIndex, 2, 1, 3)]
    [InlineData(4, Split | EventIndex, 4, 2, 6)]
    [InlineData(4, Split, 4, 2, 0)]
    [InlineData(2, Packed, 2, 1, 0)]
    [InlineData(2, Packed | EventIndex, 2, 1, 1)]
    [InlineData(3, Packed | EventIndex, 4, 2, 2)]
    public void Every_request_comes_back_in_every_interleaving(
        int size, ulong features, int requests, int perPublish, int before)
    {
        int lost = Explore(size, features, requests, perPublish, before, Carelessness.None, out int schedules);
        Assert.Equal(0, lost);
        Assert.InRange(schedules, 100, int.MaxValue);
    }

    [Theory]
    [InlineData(Split, Carelessness.DeviceDoesNotLookAgain)]
    [InlineData(Split, Carelessness.DriverDoesNotLookAgain)]
    [InlineData(Split, Carelessness.DeviceDoesNotArm)]
    [InlineData(Split | EventIndex, Carelessness.DeviceDoesNotLookAgain)]
    [InlineData(Split | EventIndex, Carelessness.DriverDoesNotLookAgain)]
    [InlineData(Split | EventIndex, Carelessness.DeviceDoesNotArm)]
    [InlineData(Packed, Carelessness.DeviceDoesNotLookAgain)]
    [InlineData(Packed | EventIndex, Carelessness.DriverDoesNotLookAgain)]
    [InlineData(Packed | EventIndex, Carelessness.DeviceDoesNotArm)]
    public void The_exploration_sees_a_side_that_is_careless(ulong features, Carelessness carelessness)
    {
        int lost = Explore(2, features, 2, 1, 0, carelessness, out _);
        Assert.NotEqual(0, lost);
    }

    [Fact]
    public void An_index_passes_what_lies_from_the_old_one_to_the_one_before_the_new()
    {
        foreach (int old in new[] { 0, 1, 7, 32767, 65530, 65535 })
        {
            for (int count = 0; count <= 12; count++)
            {
                for (int wanted = old - 20; wanted <= old + 20; wanted++)
                {
                    bool passes = wanted >= old && wanted < old + count;
                    Assert.Equal(passes, SplitRing.Passes((ushort)wanted, (ushort)(old + count), (ushort)old));
                }
            }
        }
    }

    /// <summary>A kick is asked for what was published, also when more was added and not published yet.</summary>
    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed)]
    [InlineData(Packed | EventIndex)]
    public void What_is_not_published_is_not_kicked_and_not_forgotten(ulong features)
    {
        using DriverMemory memory = new(1 << 16);
        using NotifiedRing ring = new(memory, 4, features, 0, 1, before: 0, Carelessness.None);
        DriverBuffer buffer = memory.Allocate(16);
        Assert.False(ring.Device.ArmKicks());
        Assert.True(ring.Driver.TryAdd([], [buffer], 0));
        Assert.False(ring.Driver.ShouldKick());
        ring.Driver.Publish();
        Assert.True(ring.Driver.TryAdd([], [buffer], 1));
        Assert.True(ring.Driver.ShouldKick());
        ring.Device.SuppressKicks();
        Assert.True(ring.Device.TryTake(out _));
        Assert.False(ring.Device.ArmKicks());
        ring.Driver.Publish();
        Assert.True(ring.Driver.ShouldKick());
    }

    private static int Explore(
        int size,
        ulong features,
        int requests,
        int perPublish,
        int before,
        Carelessness carelessness,
        out int schedules)
    {
        int lost = 0;
        using DriverMemory memory = new(1UL << 30);
        schedules = ScheduleExplorer.Explore(
            () => new NotifiedRing(memory, size, features, requests, perPublish, before, carelessness),
            ring => (ring.DriverSide, ring.DeviceSide),
            ring => lost += ring.DriverSide.Collected == requests ? 0 : 1,
            maxSteps: 500);
        return lost;
    }
}

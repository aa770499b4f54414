// What a transport may ask a device, apart from its queues.
using Outboard.Linux.Events;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class VirtioDeviceTests
{
    [Fact]
    public void Features_reach_the_device_and_leave_it_at_reset()
    {
        TestDevice device = new();
        device.AcceptFeatures(VirtioFeatures.Version1 | 5);
        Assert.Equal(VirtioFeatures.Version1 | 5, device.NegotiatedFeatures);
        Assert.Equal(VirtioFeatures.Version1 | 5, device.Accepted);
        device.Reset();
        Assert.Equal(0UL, device.NegotiatedFeatures);
    }

    [Fact]
    public void A_write_to_the_configuration_is_told_when_it_changed_something()
    {
        TestDevice device = new();
        Assert.False(device.WriteConfig(0, [1]));
        Assert.Equal(0, device.ConfigWrites);
        Assert.True(device.WriteConfig(4, [1]));
        Assert.Equal(1, device.ConfigWrites);
    }

    [Fact]
    public void Changes_of_the_configuration_are_raised()
    {
        TestDevice device = new();
        device.Grow();
        int raised = 0;
        device.ConfigChanged += () => raised++;
        device.Grow();
        Assert.Equal(1, raised);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(32769)]
    public void A_queue_has_1_to_32768_descriptors(int size) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => new TestDevice(size));

    [Fact]
    public void A_device_without_a_configuration_has_an_empty_one()
    {
        NoConfigDevice device = new();
        Assert.Equal(0, device.Config.SizeBytes);
        Assert.False(device.WriteConfig(0, [1]));
    }

    [Theory]
    [InlineData(-1, 16)]
    [InlineData(2, 16)]
    [InlineData(0, 128)]
    public async Task A_queue_that_the_device_does_not_have_is_not_started(int index, int size)
    {
        TestDevice device = new();
        using DriverMemory memory = new(1 << 16);
        SplitDriverQueue ring = new(0, size, memory, VirtioFeatures.Version1);
        VringSetup setup = new()
        {
            Index = index,
            Size = size,
            Addresses = ring.Addresses,
            Base = 0,
            Features = VirtioFeatures.Version1,
            Memory = memory.Memory,
        };
        await using QueueWorker worker = new("test");
        using EventFd kick = new();
        await Assert.ThrowsAnyAsync<Exception>(() => device.StartQueue(setup, new QueueLinks(), worker));
    }

    private sealed class NoConfigDevice() : VirtioDevice(VirtioDeviceId.Entropy, [1]);

    private sealed class TestDevice(int size = 64) : VirtioDevice(
        VirtioDeviceId.Console, [size, 64], new ConfigSpace(8, new ConfigField(4, 1, IsWritable: true)))
    {
        internal ulong Accepted { get; private set; }

        internal int ConfigWrites { get; private set; }

        internal void Grow()
        {
            Config.Set(new ConfigField(0, 4), Config.Get(new ConfigField(0, 4)) + 1);
            NotifyConfigChanged();
        }

        protected override void OnFeaturesAccepted(ulong features) => Accepted = features;

        protected override void OnConfigWritten() => ConfigWrites++;
    }
}

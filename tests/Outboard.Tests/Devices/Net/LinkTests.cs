// What a network device is told of its guest: announcements go out of the back-end, the MTU must fit it.
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Net;

public sealed class LinkTests
{
    private static readonly byte[] s_mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    /// <summary>RFC 903, written out.</summary>
    private static readonly byte[] s_frame =
    [
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, .. s_mac, 0x80, 0x35,
        0, 1, 8, 0, 6, 4, 0, 3, .. s_mac, 0, 0, 0, 0, .. s_mac, 0, 0, 0, 0, .. new byte[18],
    ];

    [Fact]
    public async Task Announcement_goes_out_at_once()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        DriverBuffer target = rig.Offer(2000)[0];
        Assert.True(rig.Device.TryAnnounce(s_mac));
        Assert.Equal((uint)(NetHeader.Bytes + s_frame.Length), rig.Receive.Collect().Written);
        Assert.Equal(s_frame, target.Span.Slice(NetHeader.Bytes, s_frame.Length).ToArray());
    }

    [Fact]
    public async Task Announcement_of_a_device_that_does_not_run_waits_for_its_start()
    {
        LoopbackBackend backend = new();
        NetDevice device = new(backend);
        Assert.True(device.TryAnnounce(s_mac));
        await using NetRig rig = await NetRig.StartAsync(backend, device: device);
        DriverBuffer target = rig.Offer(2000)[0];
        rig.Receive.Collect();
        Assert.Equal(s_frame, target.Span.Slice(NetHeader.Bytes, s_frame.Length).ToArray());
    }

    [Theory]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 1, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0x52, 0, 0, 0, 0 })]
    [InlineData(new byte[] { })]
    public void Nobodys_address_is_not_announced(byte[] address)
    {
        using LoopbackBackend backend = new();
        Assert.False(new NetDevice(backend).TryAnnounce(address));
    }

    [Theory]
    [InlineData(67, false)]
    [InlineData(68, true)]
    [InlineData(65535, true)]
    [InlineData(65536, false)]
    [InlineData(-1, false)]
    public void Mtu_is_in_the_configuration_until_reset(int mtu, bool fits)
    {
        using LoopbackBackend backend = new();
        NetDevice device = new(backend, new NetDeviceOptions { Mtu = 1400 });
        Assert.Equal(fits, device.TrySetMtu(mtu));
        Assert.Equal(fits ? (ulong)mtu : 1400, device.Config.Get(NetConfig.Mtu));
        device.Reset();
        Assert.Equal(1400UL, device.Config.Get(NetConfig.Mtu));
    }
}

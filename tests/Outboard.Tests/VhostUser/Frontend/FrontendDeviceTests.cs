// Our front-end against our back-end in what only devices of some kinds have: crypto sessions, a display, objects that
// two devices share; and rings that are notified by messages.
using Outboard.Memory;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class FrontendDeviceTests : BackendTest
{
    private static readonly Guid s_name = new("01234567-89ab-cdef-0123-456789abcdef");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private TalentedDevice Device => (TalentedDevice)Rig.Device;

    private protected override FakeDevice CreateDevice() => new TalentedDevice();

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) => options with
    {
        AdditionalProtocolFeatures = ProtocolFeatures.InbandNotifications | ProtocolFeatures.CrossEndian,
    };

    [Fact]
    public async Task Crypto_sessions_are_made_and_closed()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        CryptoSessionParameters wanted = new(0x02)
        {
            Symmetric = new SymmetricSession(3, 0, 0, 0, 1, 2, 0, 0, new byte[16], Array.Empty<byte>()),
        };
        ulong first = await frontend.CreateCryptoSessionAsync(wanted, Token);
        ulong second = await frontend.CreateCryptoSessionAsync(wanted, Token);
        Assert.NotEqual(first, second);
        await frontend.CreateCryptoSessionAsync(wanted, Token);
        await Assert.ThrowsAsync<ProtocolException>(() => frontend.CreateCryptoSessionAsync(wanted, Token));
        await frontend.CloseCryptoSessionAsync(first, Token);
        await Assert.ThrowsAsync<ProtocolException>(() => frontend.CloseCryptoSessionAsync(first, Token));
        await frontend.CreateCryptoSessionAsync(wanted, Token);
    }

    [Fact]
    public async Task A_display_is_drawn_on()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        await using DisplayConnection display = await frontend.GpuSetSocketAsync(Token);
        using SharedMemory picture = TalentedDevice.MemoryWith(0x33);
        await Device.Display!.SendAsync(new DisplayMessage(9, false, new byte[40], picture), Token);
        using (DisplayMessage shown = (await display.ReceiveAsync(Token))!)
        {
            Assert.Equal((9U, 40), (shown.Request, shown.Payload.Length));
            Assert.Equal(0x33, TalentedDevice.FirstByte(shown.Picture!));
        }

        await display.SendAsync(new DisplayMessage(10, true, Array.Empty<byte>()), Token);
        Assert.True((await Device.Display.ReceiveAsync(Token))!.IsReply);
        await Device.Display.DisposeAsync();
    }

    [Fact]
    public async Task An_object_of_one_device_is_found_by_another_one()
    {
        TalentedDevice user = new();
        await using BackendRig otherRig = new(null, user);
        SharedObjectTable table = new();
        VhostUserFrontendOptions options = new() { SharedObjects = table };
        await using VhostUserFrontend owner = await Rig.ConnectFrontendAsync(options);
        await using VhostUserFrontend other = await otherRig.ConnectFrontendAsync(options);
        Device.Objects[s_name] = 0x44;
        Assert.Null(await user.Directory!.LookUpAsync(s_name));
        Assert.True(await Device.Directory!.AddAsync(s_name));
        Assert.False(await user.Directory.AddAsync(s_name));
        using (SharedMemory found = (await user.Directory.LookUpAsync(s_name))!)
        {
            Assert.Equal(0x44, TalentedDevice.FirstByte(found));
        }

        // Only the owner takes it back; and it goes with its owner.
        Assert.False(await user.Directory.RemoveAsync(s_name));
        Assert.True(await Device.Directory.RemoveAsync(s_name));
        Assert.Null(await user.Directory.LookUpAsync(s_name));
        Assert.True(await Device.Directory.AddAsync(s_name));
        await owner.DisposeAsync();
        Assert.Null(await user.Directory.LookUpAsync(s_name));
        Assert.True(await user.Directory.AddAsync(s_name));
    }

    [Fact]
    public async Task A_device_finds_its_own_object_through_the_directory()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        Device.Objects[s_name] = 0x55;
        Assert.True(await Device.Directory!.AddAsync(s_name));
        using SharedMemory found = (await Device.Directory.LookUpAsync(s_name))!;
        Assert.Equal(0x55, TalentedDevice.FirstByte(found));
        Assert.Null(await frontend.GetSharedObjectAsync(Guid.NewGuid(), Token));
    }

    [Fact]
    public async Task Names_of_one_owner_are_bounded()
    {
        SharedObjectTable table = new();
        object owner = new();
        for (int i = 0; i < SharedObjectTable.MaxNamesOfOwner; i++)
        {
            Assert.True(table.Add(Guid.NewGuid(), owner, () => Task.FromResult<SharedMemory?>(null)));
        }

        Assert.False(table.Add(s_name, owner, () => Task.FromResult<SharedMemory?>(null)));
        Assert.True(table.Add(s_name, new object(), () => Task.FromResult<SharedMemory?>(null)));
        Assert.Null(await table.LookUpAsync(s_name));
    }

    [Fact]
    public async Task Rings_run_by_messages_alone()
    {
        VhostUserFrontendOptions defaults = new();
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(defaults with
        {
            ProtocolFeatures = defaults.ProtocolFeatures | ProtocolFeatures.InbandNotifications,
        });
        using DriverMemory memory = new(1 << 16);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, Token);
        DriverBuffer request = memory.Allocate(16);
        DriverBuffer answer = memory.Allocate(16);
        for (byte i = 1; i < 50; i++)
        {
            request.Span.Fill(i);
            Assert.True(queue.Ring.TryAdd([request], [answer], i));
            queue.Submit();
            while (!queue.Ring.TryCollect(out _, out _))
            {
                Assert.True(queue.WaitForUsed((int)Eventually.Limit.TotalMilliseconds), "no call");
            }

            Assert.Equal(request.Span, answer.Span);
        }

        await frontend.StopQueueAsync(queue, Token);
    }

    [Fact]
    public async Task Broken_ring_is_told_by_a_message()
    {
        VhostUserFrontendOptions defaults = new();
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(defaults with
        {
            ProtocolFeatures = defaults.ProtocolFeatures | ProtocolFeatures.InbandNotifications,
        });
        using DriverMemory memory = new(1 << 16);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(1, 16, memory, Token);
        TaskCompletionSource<int> told = new();
        frontend.RingBroken += index => told.TrySetResult(index);
        await frontend.RemMemRegAsync(memory, Token);
        Assert.Equal(1, await told.Task.WaitAsync(Eventually.Limit, Token));
    }

    [Fact]
    public async Task Byte_order_of_a_ring_is_told()
    {
        VhostUserFrontendOptions defaults = new();
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(defaults with
        {
            ProtocolFeatures = defaults.ProtocolFeatures | ProtocolFeatures.CrossEndian,
        });
        await frontend.SetVringEndianAsync(0, isBigEndian: false, Token);
        await Assert.ThrowsAsync<ProtocolException>(() => frontend.SetVringEndianAsync(0, isBigEndian: true, Token));
    }
}

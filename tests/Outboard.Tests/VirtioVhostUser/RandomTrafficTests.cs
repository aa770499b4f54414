// Front-ends and drivers that send anything: whatever it is, the device goes on, and the next well-behaved ones work.
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class RandomTrafficTests
{
    private const int Page = 4096;

    [Theory]
    [InlineData(1, false)]
    [InlineData(2, false)]
    [InlineData(3, false)]
    [InlineData(1, true)]
    [InlineData(2, true)]
    public async Task A_front_end_that_sends_anything(int seed, bool isVhostPci)
    {
        OpenThings before = OpenThings.Count();
        await using (ApplianceRig rig = await ApplianceRig.StartAsync(isVhostPci: isVhostPci))
        {
            rig.StartBackend(new FakeDevice());
            Random random = new(seed);
            for (int connection = 0; connection < 20; connection++)
            {
                using WirePeer peer = await ConnectAsync(rig);
                try
                {
                    for (int message = 0; message < 30; message++)
                    {
                        await SendAnythingAsync(rig, peer, random);
                    }
                }
                catch (LinuxException)
                {
                    // Cut off, which is what it deserves.
                }
            }

            await ExpectWorksAsync(rig);
        }

        await before.AssertNothingLeftAsync();
    }

    [Theory]
    [InlineData(4, false)]
    [InlineData(5, false)]
    [InlineData(6, false)]
    [InlineData(4, true)]
    [InlineData(5, true)]
    public async Task A_driver_that_sends_anything(int seed, bool isVhostPci)
    {
        OpenThings before = OpenThings.Count();
        await using (ApplianceRig rig = await ApplianceRig.StartAsync(isVhostPci: isVhostPci))
        {
            Random random = new(seed);
            RawDriver driver = new(rig.Access);
            driver.Post();
            for (int step = 0; step < 300; step++)
            {
                await DoAnythingAsync(rig, driver, random);
            }

            await rig.Access.DisposeAsync();
            await rig.RestartDriverAsync();
            rig.StartBackend(new FakeDevice());
            await ExpectWorksAsync(rig);
        }

        await before.AssertNothingLeftAsync();
    }

    private static Task<WirePeer> ConnectAsync(ApplianceRig rig) => RetryAsync(rig.ConnectAsync);

    /// <summary>Connects, again while too many wait already.</summary>
    private static async Task<T> RetryAsync<T>(Func<Task<T>> connect)
    {
        while (true)
        {
            try
            {
                return await connect();
            }
            catch (SocketException)
            {
                await Task.Delay(5, TestContext.Current.CancellationToken);
            }
        }
    }

    private static async Task ExpectWorksAsync(ApplianceRig rig)
    {
        await using VhostUserFrontend frontend = await RetryAsync(() => rig.ConnectFrontendAsync());
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory);
        DriverBuffer request = memory.Allocate(16);
        DriverBuffer answer = memory.Allocate(16);
        request.Span.Fill(0x31);
        queue.Ring.TryAdd([request], [answer], 0);
        queue.Submit();
        while (!queue.Ring.TryCollect(out _, out _))
        {
            Assert.True(queue.WaitForUsed(20_000), "no call came");
        }

        Assert.Equal(request.Span, answer.Span);
    }

    private static async Task SendAnythingAsync(ApplianceRig rig, WirePeer peer, Random random)
    {
        RequestRow[] rows = [.. RequestTable.FrontendRows];
        RequestRow row = rows[random.Next(rows.Length)];
        int size = random.Next(4) == 0 ? random.Next(64) : row.Size.Fixed + (random.Next(2) * row.Size.Element);
        byte[] payload = new byte[size];
        if (random.Next(3) > 0)
        {
            random.NextBytes(payload);
            payload.AsSpan(0, Math.Min(8, size)).Clear();
            if (size > 0)
            {
                payload[0] = (byte)random.Next(6);
            }
        }

        List<FileDescriptor> descriptors = [];
        for (int i = random.Next(3); i > 0; i--)
        {
            descriptors.Add(random.Next(2) == 0
                ? rig.Own(MemFd.Create("outboard-random", 16 * Page))
                : rig.Own(new EventFd()).Descriptor);
        }

        uint flags = (uint)(random.Next(8) == 0 ? random.Next(16) : random.Next(2) == 0 ? 1 : 9);
        await peer.SendAsync(WirePeer.Frame(row.Id, flags, payload), [.. descriptors]);
    }

    private static async Task DoAnythingAsync(ApplianceRig rig, RawDriver driver, Random random)
    {
        switch (random.Next(8))
        {
            case 0:
                await driver.StatusAsync();
                bool isWrong = random.Next(20) == 0;
                await driver.WriteStatusAsync(isWrong ? (uint)random.Next() : VirtioVhostUserSpec.BackendUp);
                break;
            case 1:
                await driver.WriteStatusAsync(0);
                break;
            case 2 when random.Next(4) == 0:
                await rig.ResetDriverAsync();
                break;
            case 3:
                rig.Access.Ring(random.Next(VirtioVhostUserSpec.LogOf(rig.Device.Rings) + 1));
                break;
            case 4:
                using (WirePeer peer = await ConnectAsync(rig))
                {
                    await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
                }

                break;
            default:
                byte[] bytes = WirePeer.Frame(
                    (uint)random.Next(50), (uint)random.Next(16), new byte[random.Next(64)]);
                driver.SendBytes(random.Next(6) == 0 ? bytes[..random.Next(1, bytes.Length)] : bytes, waits: false);
                await Eventually.IsTrueAsync(driver.HasSent, TimeSpan.FromMilliseconds(50));
                break;
        }

        if (driver.TryCollectAny())
        {
            driver.Post(1);
        }
    }
}

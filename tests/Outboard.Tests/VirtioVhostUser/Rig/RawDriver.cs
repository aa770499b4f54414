// A driver of the device without anything behind it: each step by itself, in whatever order a test wants.
using Outboard.Linux.Events;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

/// <summary>Drives a device in this process by hand.</summary>
internal sealed class RawDriver
{
    private const int Buffers = 8;

    private readonly DriverAccess _access;
    private readonly DriverBuffer[] _receive;
    private readonly DriverBuffer _send;
    private uint _posted;

    public RawDriver(DriverAccess access, uint bufferBytes = VirtioVhostUserSpec.MaxMessageBytes)
    {
        _access = access;
        _receive = [.. Enumerable.Range(0, Buffers).Select(_ => access.Receive.Memory.Allocate(bufferBytes))];
        _send = access.Transmit.Memory.Allocate(2 * VirtioVhostUserSpec.MaxMessageBytes);
    }

    /// <summary>Who is there. Whether something lies in the windows is asked by itself.</summary>
    public async Task<uint> StatusAsync() =>
        await _access.ReadStatusAsync(TestContext.Current.CancellationToken) & ~VirtioVhostUserSpec.WindowsInUse;

    public async Task<bool> SeesMemoryAsync() =>
        (await _access.ReadStatusAsync(TestContext.Current.CancellationToken) & VirtioVhostUserSpec.WindowsInUse) != 0;

    public Task WriteStatusAsync(uint status) =>
        _access.WriteStatusAsync(status, TestContext.Current.CancellationToken);

    /// <summary>Looks, then arms, as a driver has to.</summary>
    public async Task ArmAsync()
    {
        await StatusAsync();
        await WriteStatusAsync(VirtioVhostUserSpec.BackendUp);
        Assert.NotEqual(0U, await StatusAsync() & VirtioVhostUserSpec.BackendUp);
    }

    public Task ExpectStatusAsync(uint status) =>
        Eventually.TrueAsync(() => StatusAsync().Result == status, $"status {status}");

    /// <summary>Gives the device buffers for messages.</summary>
    public void Post(int count = Buffers)
    {
        for (int i = 0; i < count; i++)
        {
            DriverBuffer buffer = _receive[_posted % Buffers];
            buffer.Span.Clear();
            Assert.True(_access.Receive.Ring.TryAdd([], [buffer], _posted++ % Buffers));
        }

        _access.Receive.Submit();
    }

    /// <summary>Buffers that came back empty: ends of sessions.</summary>
    public int Ends { get; private set; }

    /// <summary>The next message; null when none has come. Ends of sessions are counted and passed over.</summary>
    public DriverFrame? TryReceive()
    {
        if (!_access.Receive.Ring.TryCollect(out uint index, out uint written))
        {
            return null;
        }

        if (written == 0)
        {
            Assert.NotEqual(0UL, _access.Features & VirtioVhostUserSpec.SessionEndBuffers);
            Ends++;
            Post(1);
            return TryReceive();
        }

        Assert.Null(DriverFrame.TryDecode(_receive[index].Span[..(int)written], out DriverFrame frame));
        return frame;
    }

    /// <summary>Takes a buffer back, whatever is in it.</summary>
    public bool TryCollectAny() => _access.Receive.Ring.TryCollect(out _, out _);

    /// <summary>The next message, which a buffer is given for when the first ones are used up.</summary>
    public async Task<DriverFrame> ReceiveAsync(FrontendRequest request)
    {
        DriverFrame? frame = null;
        await Eventually.TrueAsync(() => (frame = TryReceive()) is not null, $"{request}");
        Post(1);
        Assert.Equal((uint)request, frame!.Value.Request);
        Assert.False(frame.Value.IsReply);
        return frame.Value;
    }

    public void Reply<T>(FrontendRequest request, T payload)
        where T : unmanaged => Send(new DriverFrame((uint)request, MessageFlags.Reply, WirePeer.Bytes(payload)));

    public void Send(DriverFrame frame) => SendBytes(frame.Encode());

    /// <summary>Sends bytes, whatever they are, and waits until they are taken.</summary>
    public void SendBytes(byte[] bytes, bool waits = true)
    {
        Assert.True(bytes.Length <= _send.Length);
        bytes.CopyTo(_send.Span);
        Assert.True(_access.Transmit.Ring.TryAdd([_send.Slice(0, (uint)bytes.Length)], [], 0));
        _access.Transmit.Submit();
        Assert.True(!waits || SpinWait.SpinUntil(HasSent, Eventually.Limit));
    }

    /// <summary>Whether the device has taken the next of the messages.</summary>
    public bool HasSent() => _access.Transmit.Ring.TryCollect(out _, out _);

    public EventFd KickOf(int ring) => _access.KickOf(ring)!;
}

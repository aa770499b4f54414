// A conversation as a front-end once held it: lines of "NAME [*] [payload words]", where * asks for a reply.
using System.Globalization;
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser;

/// <summary>Plays a front-end's part of a recorded conversation and checks every answer's form.</summary>
/// <param name="rig">The back-end.</param>
/// <param name="peer">A connection to it.</param>
/// <param name="rings">The rings whose memory, addresses and notifiers are sent.</param>
internal sealed class Transcript(BackendRig rig, WirePeer peer, params RawRing[] rings)
{
    private bool _acknowledges;
    private RawRing[] _rings = rings;
    private WireMessage? _inflight;

    /// <summary>The last answer of each kind.</summary>
    public Dictionary<FrontendRequest, byte[]> Replies { get; } = [];

    /// <summary>The back-end's own channel, once it was sent.</summary>
    public WirePeer? BackendChannel { get; private set; }

    /// <summary>Goes on with other rings.</summary>
    public void Use(params RawRing[] others) => _rings = others;

    public async Task PlayAsync(string conversation)
    {
        const StringSplitOptions trimmed = StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries;
        foreach (string line in conversation.Split('\n', trimmed))
        {
            await SayAsync(line.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        }

        await peer.ExpectServedAsync();
    }

    private async Task SayAsync(string[] words)
    {
        RequestRow row = RequestTable.FrontendRows.Single(row => row.Name == words[0]);
        FrontendRequest request = (FrontendRequest)row.Id;
        bool asks = words.Contains("*");
        ulong[] numbers = [.. words.Skip(1).Where(word => word != "*").Select(Number)];
        (byte[] payload, FileDescriptor[] descriptors) = Compose(request, numbers);
        await peer.SendAsync(request, asks ? WirePeer.NeedReply : WirePeer.NoReply, payload, descriptors);
        if (request == FrontendRequest.SetProtocolFeatures)
        {
            _acknowledges = (numbers[0] & (ulong)ProtocolFeatures.ReplyAck) != 0;
        }

        if (request == FrontendRequest.GetInflightFd)
        {
            _inflight = await peer.ReplyWithAsync(request, descriptors: 1);
            Assert.Equal(InflightPayload.Bytes, _inflight.Payload.Length);
            rig.Own(_inflight.Descriptors[0]);
        }
        else if (row.HasOwnReply)
        {
            byte[] reply = await peer.ReplyAsync(request);
            Assert.Equal(request == FrontendRequest.GetConfig ? payload.Length : 8, reply.Length);
            Replies[request] = reply;
        }
        else if (asks && _acknowledges)
        {
            Assert.Equal(WirePeer.Bytes(0UL), await peer.ReplyAsync(request));
        }
    }

    private (byte[] Payload, FileDescriptor[] Descriptors) Compose(FrontendRequest request, ulong[] numbers)
    {
        RawRing Ring() => _rings.Single(ring => ring.Index == (int)numbers[0]);
        switch (request)
        {
            case FrontendRequest.SetFeatures or FrontendRequest.SetProtocolFeatures or FrontendRequest.SetStatus:
                return (WirePeer.Bytes(numbers[0]), []);
            case FrontendRequest.SetVringKick:
                return (RawRing.NotifierPayload((int)numbers[0], true), [Ring().Kick.Descriptor]);
            case FrontendRequest.SetVringCall:
                return (RawRing.NotifierPayload((int)numbers[0], true), [Ring().Call.Descriptor]);
            case FrontendRequest.SetVringErr:
                return (RawRing.NotifierPayload((int)numbers[0], true), [Ring().Error.Descriptor]);
            case FrontendRequest.SetVringAddr:
                return (WirePeer.Bytes(Ring().Addresses), []);
            case FrontendRequest.SetVringNum:
                return (WirePeer.Bytes(new VringStatePayload((uint)numbers[0], RawRing.Size)), []);
            case FrontendRequest.SetVringBase or FrontendRequest.SetVringEnable:
                return (WirePeer.Bytes(new VringStatePayload((uint)numbers[0], (uint)numbers[1])), []);
            case FrontendRequest.GetVringBase:
                return (WirePeer.Bytes(new VringStatePayload((uint)numbers[0], 0)), []);
            case FrontendRequest.AddMemReg:
                return (WirePeer.Bytes(RawRing.Describe(_rings[0].Memory)), [_rings[0].Memory.File.Descriptor]);
            case FrontendRequest.SetMemTable:
                byte[] region = WirePeer.Bytes(RawRing.Describe(_rings[0].Memory).Region);
                return (
                    [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. region], [_rings[0].Memory.File.Descriptor]);
            case FrontendRequest.GetConfig:
                return ([.. WirePeer.Bytes(new ConfigPayload(0, (uint)numbers[0], 0)), .. new byte[numbers[0]]], []);
            case FrontendRequest.GetInflightFd:
                return (WirePeer.Bytes(new InflightPayload(0, 0, 2, RawRing.Size, 0)), []);
            case FrontendRequest.SetInflightFd:
                return (_inflight!.Payload, _inflight.Descriptors);
            case FrontendRequest.SetBackendReqFd:
                (FileDescriptor passed, BackendChannel) = rig.SocketPair();
                return ([], [passed]);
            default:
                return ([], []);
        }
    }

    private static ulong Number(string word) => word.StartsWith("0x", StringComparison.Ordinal)
        ? ulong.Parse(word.AsSpan(2), NumberStyles.HexNumber, CultureInfo.InvariantCulture)
        : ulong.Parse(word, CultureInfo.InvariantCulture);
}

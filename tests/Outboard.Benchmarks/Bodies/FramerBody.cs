// Cutting the stream into messages: the control plane, which allocates the payload that it hands on.
using System.Runtime.InteropServices;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Frames a message of 40 bytes of payload, header and payload apart.</summary>
public sealed class FramerBody : BenchmarkBody
{
    private const int PayloadBytes = 40;

    private readonly MessageFramer _framer = new();
    private readonly byte[] _message = new byte[MessageHeader.Bytes + PayloadBytes];

    /// <summary>Makes the message.</summary>
    public FramerBody()
    {
        MessageHeader header = new((uint)FrontendRequest.SetVringAddr, MessageFlags.Version1, PayloadBytes);
        MemoryMarshal.Write(_message, in header);
    }

    /// <inheritdoc/>
    public override void Run()
    {
        for (int i = 0; i < Operations; i++)
        {
            VhostUserMessage? message = null;
            for (int done = 0; done < _message.Length;)
            {
                Memory<byte> next = _framer.Next;
                _message.AsMemory(done, next.Length).CopyTo(next);
                done += next.Length;
                message = _framer.Advance(next.Length, []);
            }

            (message ?? throw new InvalidOperationException("the message is complete")).Dispose();
        }
    }
}

// Finds messages in a stream that somebody else reads, too. Other than MessageFramer it accepts whatever comes: what is
// wrong with a message is the receiver's business. It holds no more than the beginning of a long payload.
//
// Invariant, after every call:  filled < 12, or filled = 12 and rest > 0 (within a payload).
using System.Runtime.InteropServices;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Tracing;

/// <summary>Cuts a stream into headers and payloads.</summary>
internal sealed class StreamCutter
{
    /// <summary>Payload that is kept for showing: any message of the protocol, and the fields of a picture's.</summary>
    private const int MaxKeptBytes = 16 * 1024;

    private readonly byte[] _header = new byte[MessageHeader.Bytes];
    private readonly List<byte> _payload = [];
    private int _filled;
    private uint _rest;

    /// <summary>Bytes up to the end of what is being read: the header, or the payload.</summary>
    internal uint Wanted => _filled < MessageHeader.Bytes ? (uint)(MessageHeader.Bytes - _filled) : _rest;

    /// <summary>Whether a message has been begun.</summary>
    internal bool IsInMessage => _filled > 0;

    /// <summary>The header, once it is complete.</summary>
    internal MessageHeader Header => MemoryMarshal.Read<MessageHeader>(_header);

    /// <summary>The payload, or the beginning of it, once the message is complete.</summary>
    internal byte[] TakePayload()
    {
        byte[] payload = [.. _payload];
        _payload.Clear();
        return payload;
    }

    /// <summary>Takes note of bytes, at most <see cref="Wanted"/>.</summary>
    /// <returns>Whether a message is complete with them.</returns>
    internal bool Advance(ReadOnlySpan<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)bytes.Length, Wanted, nameof(bytes));
        if (_filled < MessageHeader.Bytes)
        {
            bytes.CopyTo(_header.AsSpan(_filled));
            _filled += bytes.Length;
            if (_filled < MessageHeader.Bytes)
            {
                return false;
            }

            _rest = Header.SizeBytes;
        }
        else
        {
            _payload.AddRange(bytes[..Math.Min(bytes.Length, MaxKeptBytes - _payload.Count)]);
            _rest -= (uint)bytes.Length;
        }

        if (_rest > 0)
        {
            return false;
        }

        _filled = 0;
        return true;
    }
}

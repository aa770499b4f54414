// Finds messages in a stream that somebody else reads, too, of any protocol whose messages begin with a header of fixed
// size that tells the payload's. Other than a framer it accepts whatever comes: what is wrong with a message is the
// receiver's business. It holds no more than the beginning of a long payload.
//
// Invariant, after every call:  filled < header, or filled = header and rest > 0 (within a payload).
namespace Outboard.Linux.Sockets;

/// <summary>Tells the payload's size from a complete header.</summary>
public delegate uint PayloadSize(ReadOnlySpan<byte> header);

/// <summary>Cuts a stream into headers and payloads.</summary>
/// <param name="headerBytes">Bytes of a header.</param>
/// <param name="payloadSize">Tells the payload's size.</param>
public sealed class StreamCutter(int headerBytes, PayloadSize payloadSize)
{
    /// <summary>Payload that is kept for showing: the fields of any message, and the beginning of its data.</summary>
    private const int MaxKeptBytes = 16 * 1024;

    private readonly byte[] _header = new byte[headerBytes];
    private readonly List<byte> _payload = [];
    private int _filled;
    private uint _rest;

    /// <summary>Bytes up to the end of what is being read: the header, or the payload.</summary>
    public uint Wanted => _filled < headerBytes ? (uint)(headerBytes - _filled) : _rest;

    /// <summary>Whether a message has been begun.</summary>
    public bool IsInMessage => _filled > 0;

    /// <summary>The header, once it is complete.</summary>
    public ReadOnlySpan<byte> Header => _header;

    /// <summary>The payload, or the beginning of it, once the message is complete.</summary>
    public byte[] TakePayload()
    {
        byte[] payload = [.. _payload];
        _payload.Clear();
        return payload;
    }

    /// <summary>Takes note of bytes, at most <see cref="Wanted"/>.</summary>
    /// <returns>Whether a message is complete with them.</returns>
    public bool Advance(ReadOnlySpan<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)bytes.Length, Wanted, nameof(bytes));
        if (_filled < headerBytes)
        {
            bytes.CopyTo(_header.AsSpan(_filled));
            _filled += bytes.Length;
            if (_filled < headerBytes)
            {
                return false;
            }

            _rest = payloadSize(_header);
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

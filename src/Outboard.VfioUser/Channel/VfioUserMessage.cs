// One message that arrived: header, payload, attachments. Whoever receives a message disposes it, and with it every
// attachment that nobody took. Messages are used again: none may be touched after that.
using System.Buffers;
using System.Runtime.InteropServices;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Channel;

/// <summary>What makes a message unusable.</summary>
public enum MessageDefect
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>The size does not even cover the header. The next message begins behind the header.</summary>
    TooShort,

    /// <summary>The size is beyond what is accepted; the body was not read, so the stream ends.</summary>
    TooLong,

    /// <summary>Too many descriptors came with it; the stream ends.</summary>
    TooManyDescriptors,
}

/// <summary>A message that arrived.</summary>
public sealed class VfioUserMessage : IDisposable
{
    /// <summary>Payloads up to this size lie in the message itself: accesses of a driver do.</summary>
    private const int SmallBytes = 64;

    private readonly MessagePool _pool;
    private readonly byte[] _small = new byte[SmallBytes];
    private readonly List<Attachment> _attachments = [];
    private byte[] _buffer = [];
    private int _length;

    internal VfioUserMessage(MessagePool pool) => _pool = pool;

    /// <summary>The header.</summary>
    public MessageHeader Header { get; internal set; }

    /// <summary>What is wrong with it.</summary>
    public MessageDefect Defect { get; internal set; }

    /// <summary>The payload.</summary>
    public ReadOnlyMemory<byte> Payload => _buffer.AsMemory(0, _length);

    /// <summary>The attachments, in order.</summary>
    public IReadOnlyList<Attachment> Attachments => _attachments;

    /// <summary>When it arrived, in milliseconds of <see cref="Environment.TickCount64"/>.</summary>
    internal long ArrivedMs { get; set; }

    /// <summary>Whether its reply was sent, or decided not to be.</summary>
    internal bool IsAnswered { get; set; }

    /// <summary>The beginning of the payload as a structure. Its size was checked against the command table.</summary>
    public T Read<T>()
        where T : unmanaged => MemoryMarshal.Read<T>(Payload.Span);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Attachment attachment in _attachments)
        {
            attachment.Dispose();
        }

        _attachments.Clear();
        if (_buffer.Length > SmallBytes)
        {
            ArrayPool<byte>.Shared.Return(_buffer);
        }

        _buffer = [];

        _length = 0;
        IsAnswered = false;
        Defect = MessageDefect.None;
        _pool.Return(this);
    }

    internal void Add(Attachment attachment) => _attachments.Add(attachment);

    /// <summary>Makes room for the payload, to be filled by the framer.</summary>
    internal Memory<byte> SetLength(int length)
    {
        _buffer = length <= SmallBytes ? _small : ArrayPool<byte>.Shared.Rent(length);
        _length = length;
        return _buffer.AsMemory(0, length);
    }
}

/// <summary>Messages that wait to be used again.</summary>
internal sealed class MessagePool
{
    /// <summary>As many as a session lets wait in line, so that a flood allocates no more than once.</summary>
    private const int MaxKept = 2048;

    private readonly Lock _lock = new();
    private readonly Stack<VfioUserMessage> _free = [];

    internal VfioUserMessage Rent()
    {
        lock (_lock)
        {
            return _free.TryPop(out VfioUserMessage? message) ? message : new VfioUserMessage(this);
        }
    }

    internal void Return(VfioUserMessage message)
    {
        lock (_lock)
        {
            if (_free.Count < MaxKept)
            {
                _free.Push(message);
            }
        }
    }
}

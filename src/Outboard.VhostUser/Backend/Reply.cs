// What a request handler answers.
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>The answer to a request.</summary>
internal readonly struct Reply
{
    private readonly byte[]? _payload;
    private readonly Attachment? _attachment;

    private Reply(byte[] payload, Attachment? attachment = null)
    {
        _payload = payload;
        _attachment = attachment;
    }

    /// <summary>Done: acknowledged if the front-end asked for that.</summary>
    internal static Reply Done => default;

    /// <summary>The request's own reply; null when it has none.</summary>
    internal byte[]? OwnPayload => _payload;

    /// <summary>
    /// The reply when it comes later. The requests that may be carried out before it is sent are those of its kind.
    /// </summary>
    internal Task<byte[]>? Later { get; private init; }

    /// <summary>What goes with it.</summary>
    internal Attachment[] Attachments => _attachment is null ? [] : [_attachment];

    /// <summary>A u64.</summary>
    internal static Reply Value(ulong value) => new(VhostUserMessage.PayloadOf(value));

    /// <summary>A u64 that is known later.</summary>
    internal static Reply LaterValue(Task<ulong> value) => new() { Later = PayloadOfAsync(value) };

    /// <summary>A vring state.</summary>
    internal static Reply VringState(uint index, uint num) =>
        new(VhostUserMessage.PayloadOf(new VringStatePayload(index, num)));

    /// <summary>These bytes.</summary>
    internal static Reply Payload(byte[] payload, Attachment? attachment = null) => new(payload, attachment);

    private static async Task<byte[]> PayloadOfAsync(Task<ulong> value) =>
        VhostUserMessage.PayloadOf(await value.ConfigureAwait(false));
}

// A peer's mistake: which request, which field, which value.
namespace Outboard.VhostUser.Protocol;

/// <summary>A peer broke the protocol. The request is refused, or the connection ends.</summary>
public sealed class ProtocolException : Exception
{
    /// <summary>Describes the mistake.</summary>
    /// <param name="request">The request's name, as the specification spells it.</param>
    /// <param name="field">The offending field.</param>
    /// <param name="problem">Its value, what is wrong with it, and the remedy if there is one.</param>
    /// <param name="inner">What led here.</param>
    public ProtocolException(string request, string field, string problem, Exception? inner = null)
        : base($"{request}: {field}: {problem}", inner)
    {
        Request = request;
        Field = field;
    }

    /// <summary>The request's name.</summary>
    public string Request { get; }

    /// <summary>The offending field.</summary>
    public string Field { get; }

    /// <summary>Whether the stream itself is broken, so that no reply can follow.</summary>
    public bool IsFatal { get; init; }
}

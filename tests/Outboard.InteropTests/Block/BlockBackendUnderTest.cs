// BlockBackendUnderTest.cs - what the block tests need to know of a vhost-user-blk back-end, whosever it is.
namespace Outboard.InteropTests.Block;

/// <summary>A running vhost-user-blk back-end.</summary>
internal interface IBlockBackendUnderTest : IAsyncDisposable
{
    /// <summary>Where the back-end listens.</summary>
    string SocketPath { get; }

    /// <summary>Ends the back-end at once, as a crash would.</summary>
    Task KillAsync();

    /// <summary>Gives the disk a new size while it is in use.</summary>
    Task ResizeAsync(long length);
}

/// <summary>How a back-end is to be started.</summary>
internal sealed record BlockBackendOptions
{
    public required string SocketPath { get; init; }

    public required string ImagePath { get; init; }

    public int QueueCount { get; init; } = 1;

    public bool IsReadOnly { get; init; }

    /// <summary>The serial number; null leaves it to the back-end.</summary>
    public string? Serial { get; init; }

    /// <summary>Whether the back-end connects to <see cref="SocketPath"/>, where the front-end listens.</summary>
    public bool Connects { get; init; }

    /// <summary>How long our own program takes for each request; zero for no delay.</summary>
    public int DelayMs { get; init; }

    /// <summary>Whether the image is opened past the page cache.</summary>
    public bool IsDirect { get; init; }

    /// <summary>Whether the guest arrives by migration, so that the image is locked later.</summary>
    public bool IsIncoming { get; init; }
}

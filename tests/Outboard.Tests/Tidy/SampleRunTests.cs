// The samples, built from their one file and run as a reader would run them: the front-end asks the entropy device for
// bytes, over a socket.
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class SampleRunTests : IDisposable
{
    private readonly SampleRun _samples = new();

    public void Dispose() => _samples.Dispose();

    [Fact]
    public async Task The_front_end_gets_random_bytes_from_the_entropy_device()
    {
        string device = await _samples.BuildAsync("HelloRng");
        string frontend = await _samples.BuildAsync("HelloFrontend");
        string socket = _samples.PathOf("rng.sock");
        await using IAsyncDisposable backend = await _samples.ServeAsync(device, socket);
        string first = await _samples.RunAsync(frontend, socket);
        string second = await _samples.RunAsync(frontend, socket);
        Assert.Matches("^32 random bytes: [0-9A-F]{64}\n$", first);
        Assert.Matches("^32 random bytes: [0-9A-F]{64}\n$", second);
        Assert.NotEqual(first, second);
    }
}

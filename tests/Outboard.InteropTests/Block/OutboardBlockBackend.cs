// OutboardBlockBackend.cs - our own program, "outboard block", as the back-end under test.
using Outboard.InteropTests.Lab;

namespace Outboard.InteropTests.Block;

internal sealed class OutboardBlockBackend : IBlockBackendUnderTest
{
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    private readonly PeerProcess _process;
    private readonly string _imagePath;

    private OutboardBlockBackend(PeerProcess process, BlockBackendOptions options)
    {
        _process = process;
        _imagePath = options.ImagePath;
        SocketPath = options.SocketPath;
    }

    public string SocketPath { get; }

    /// <summary>What the program has logged.</summary>
    public string Log => _process.Errors.Text;

    public static async Task<OutboardBlockBackend> StartAsync(BlockBackendOptions options)
    {
        List<string> arguments =
        [
            OutboardProgram.Path, "block",
            options.Connects ? $"--connect={options.SocketPath}" : $"--socket-path={options.SocketPath}",
            $"--blk-file={options.ImagePath}",
            $"--num-queues={options.QueueCount}",
        ];
        if (options.IsReadOnly)
        {
            arguments.Add("--read-only");
        }

        if (options.IsIncoming)
        {
            arguments.Add("--incoming");
        }

        if (options.DelayMs > 0)
        {
            arguments.Add($"--fault-delay={options.DelayMs}");
        }

        if (options.IsDirect)
        {
            arguments.Add("--direct");
        }

        if (options.Serial is string serial)
        {
            arguments.Add($"--serial={serial}");
        }

        PeerProcess process = PeerProcess.StartProgram("dotnet", arguments);
        try
        {
            if (!options.Connects)
            {
                await process.WaitForSocketAsync(options.SocketPath, s_startLimit);
            }
        }
        catch
        {
            await process.DisposeAsync();
            throw;
        }

        return new OutboardBlockBackend(process, options);
    }

    public Task KillAsync() => _process.KillAsync();

    /// <summary>Grows or shrinks the file, and has the program look at its size again.</summary>
    public async Task ResizeAsync(long length)
    {
        using (FileStream file = new(_imagePath, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.SetLength(length);
        }

        await _process.SignalAsync("HUP");
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();
}

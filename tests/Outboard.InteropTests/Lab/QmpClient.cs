// QmpClient.cs - speaks QMP, the JSON command protocol of QEMU and qemu-storage-daemon, over a Unix socket.
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Outboard.InteropTests.Lab;

internal sealed class QmpClient : IDisposable
{
    private static readonly TimeSpan s_answerLimit = TimeSpan.FromMinutes(2);

    private readonly NetworkStream _stream;
    private readonly StreamReader _reader;
    private readonly StreamWriter _writer;

    private QmpClient(NetworkStream stream)
    {
        _stream = stream;
        _reader = new StreamReader(stream);
        _writer = new StreamWriter(stream) { AutoFlush = true, NewLine = "\n" };
    }

    /// <summary>The events that arrived while answers were awaited, in their order.</summary>
    public List<JsonNode> Events { get; } = [];

    public static async Task<QmpClient> ConnectAsync(string path)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException exception)
        {
            socket.Dispose();
            throw new LabException($"no QMP connection to {path}", exception);
        }

        QmpClient client = new(new NetworkStream(socket, ownsSocket: true));
        await client.ReadAsync();
        await client.ExecuteAsync("qmp_capabilities");
        return client;
    }

    /// <summary>Runs a command and gives what it returns; fails when QEMU answers with an error.</summary>
    public async Task<JsonNode> ExecuteAsync(string command, JsonObject? arguments = null)
    {
        JsonObject request = new() { ["execute"] = command };
        if (arguments is not null)
        {
            request["arguments"] = arguments;
        }

        await _writer.WriteLineAsync(request.ToJsonString());
        while (true)
        {
            JsonNode answer = await ReadAsync();
            if (answer["return"] is JsonNode result)
            {
                return result;
            }

            if (answer["error"] is JsonNode error)
            {
                throw new LabException($"QMP command {request.ToJsonString()} failed: {error.ToJsonString()}");
            }

            Events.Add(answer);
        }
    }

    /// <summary>Waits for an event of a name, which may have arrived already.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="counts">Whether it counts, by its data; null when all do.</param>
    /// <param name="time">How many of them have to come, those that have come included.</param>
    public async Task<JsonNode> WaitForEventAsync(string name, Predicate<JsonNode>? counts = null, int time = 1)
    {
        int next = 0;
        while (true)
        {
            for (; next < Events.Count; next++)
            {
                JsonNode entry = Events[next];
                if ((string?)entry["event"] == name && counts?.Invoke(entry["data"]!) != false && --time == 0)
                {
                    return entry;
                }
            }

            Events.Add(await ReadAsync());
        }
    }

    public void Dispose()
    {
        _writer.Dispose();
        _reader.Dispose();
        _stream.Dispose();
    }

    private async Task<JsonNode> ReadAsync()
    {
        string? line = await _reader.ReadLineAsync().WaitAsync(s_answerLimit);
        return line is null ? throw new LabException("the QMP connection ended") : JsonNode.Parse(line)!;
    }
}

// How long a guest's processor stands still for an access to a device's register: the round trip of REGION_READ over
// vfio-user, of 4 bytes, asked by blocking calls as a VMM does.
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- regions SOCKET [SECONDS]
// Serve the device with "outboard test-card --vfio-user-socket=SOCKET", or with anything else that has a region 0.
// The floor, measured in between, is a process that sends back what it gets, on such a socket with blocking calls.
using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Outboard.Benchmarks;

/// <summary>The measurement, and the child process that is the floor.</summary>
internal static class Regions
{
    public const string Name = "regions";
    public const string ChildName = "regions-echo";

    private const int HeaderBytes = 16;
    private const ushort Version = 1;
    private const ushort RegionRead = 9;
    private const int Rounds = 5;
    private const int WarmUp = 2000;
    private const string Capabilities = """{"capabilities":{"max_msg_fds":8}}""";

    /// <summary>Measures a server and the floor, alternately.</summary>
    public static async Task RunAsync(string[] arguments)
    {
        double seconds = arguments.Length > 1 ? double.Parse(arguments[1], CultureInfo.InvariantCulture) : 0.5;
        string echoPath = Path.Combine(Path.GetTempPath(), $"outboard-regions-{Environment.ProcessId}.sock");
        using Process echo = Process.Start(Environment.ProcessPath!, [ChildName, echoPath]);
        try
        {
            while (!File.Exists(echoPath))
            {
                await Task.Delay(10).ConfigureAwait(false);
            }

            using Socket server = Connect(arguments[0]);
            using Socket floor = Connect(echoPath);
            Negotiate(server);
            byte[] read = ReadMessage();
            byte[] same = new byte[read.Length];
            _ = Measure(floor, same, WarmUp, TimeSpan.Zero);
            _ = Measure(server, read, WarmUp, TimeSpan.Zero);
            Console.WriteLine("| peer | median us | 99 % us | floor: median us | ratio |\n|---|---:|---:|---:|---:|");
            for (int round = 0; round < Rounds; round++)
            {
                double[] bare = Measure(floor, same, 0, TimeSpan.FromSeconds(seconds));
                double[] asked = Measure(server, read, 0, TimeSpan.FromSeconds(seconds));
                Console.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {Path.GetFileName(arguments[0])} | {At(asked, 0.5):F2} | {At(asked, 0.99):F2} "
                    + $"| {At(bare, 0.5):F2} | {At(asked, 0.5) / At(bare, 0.5):F2} |"));
            }
        }
        finally
        {
            echo.Kill();
            File.Delete(echoPath);
        }
    }

    /// <summary>The floor: sends back whatever comes.</summary>
    public static void Echo(string path)
    {
        using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        using Socket client = listener.Accept();
        byte[] buffer = new byte[4096];
        for (int count; (count = client.Receive(buffer)) > 0;)
        {
            client.Send(buffer.AsSpan(0, count));
        }
    }

    private static Socket Connect(string path)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(path));
        return socket;
    }

    private static void Negotiate(Socket socket)
    {
        byte[] json = Encoding.UTF8.GetBytes(Capabilities + '\0');
        byte[] message = Message(Version, 4 + json.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(HeaderBytes + 2), 1);
        json.CopyTo(message.AsSpan(HeaderBytes + 4));
        socket.Send(message);
        byte[] reply = new byte[4096];
        int count = socket.Receive(reply);
        if (count < HeaderBytes || BinaryPrimitives.ReadUInt32LittleEndian(reply.AsSpan(12)) != 0)
        {
            throw new IOException("the server refused version 0.1");
        }
    }

    /// <summary>REGION_READ: offset (u64), region (u32), count (u32).</summary>
    private static byte[] ReadMessage()
    {
        byte[] message = Message(RegionRead, 16);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(HeaderBytes + 12), 4);
        return message;
    }

    private static byte[] Message(ushort command, int payloadBytes)
    {
        byte[] message = new byte[HeaderBytes + payloadBytes];
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(2), command);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(4), message.Length);
        return message;
    }

    /// <summary>Asks, waits, asks again; gives the sorted times in microseconds.</summary>
    private static double[] Measure(Socket socket, byte[] message, int atLeast, TimeSpan duration)
    {
        byte[] reply = new byte[4096];
        List<double> times = [];
        Stopwatch all = Stopwatch.StartNew();
        while (times.Count < atLeast || all.Elapsed < duration)
        {
            long before = Stopwatch.GetTimestamp();
            socket.Send(message);
            _ = socket.Receive(reply);
            times.Add(Stopwatch.GetElapsedTime(before).TotalMicroseconds);
        }

        times.Sort();
        return [.. times];
    }

    private static double At(double[] sorted, double share) => sorted[(int)((sorted.Length - 1) * share)];
}

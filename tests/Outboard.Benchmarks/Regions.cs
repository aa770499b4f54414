// How long a guest's processor stands still for an access to a device's register: the round trip of REGION_READ (or
// REGION_WRITE) over vfio-user, asked by blocking calls as a VMM does.
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- regions [--region=N] [--bytes=N] [--write]
//     [--seconds=N] SOCKET [SOCKET ...]
// Serve the device with "outboard test-card --vfio-user-socket=SOCKET", or with anything else that has the region (0,
// 4 bytes). Several servers are asked in turns, and compared with the first one.
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
    private const ushort RegionWrite = 10;
    private const uint ErrorFlag = 1 << 5;
    private const int Rounds = 5;
    private const int WarmUp = 2000;
    private const string Capabilities = """{"capabilities":{"max_msg_fds":8}}""";

    /// <summary>Measures servers and the floor, alternately.</summary>
    public static async Task RunAsync(string[] arguments)
    {
        string[] paths = [.. arguments.Where(text => !text.StartsWith('-'))];
        double seconds = Option(arguments, "--seconds", 0.5);
        byte[] message = AccessMessage(
            (uint)Option(arguments, "--region", 0), (int)Option(arguments, "--bytes", 4),
            isWrite: arguments.Contains("--write"));
        string echoPath = Path.Combine(Path.GetTempPath(), $"outboard-regions-{Environment.ProcessId}.sock");
        using Process echo = Process.Start(Environment.ProcessPath!, [ChildName, echoPath]);
        List<Socket> sockets = [];
        try
        {
            while (!File.Exists(echoPath))
            {
                await Task.Delay(10).ConfigureAwait(false);
            }

            using Socket floor = Connect(echoPath);
            _ = Measure(floor, [.. message], WarmUp, TimeSpan.Zero);
            foreach (string path in paths)
            {
                sockets.Add(Connect(path));
                Negotiate(sockets[^1]);
                Try(sockets[^1], message);
                _ = Measure(sockets[^1], message, WarmUp, TimeSpan.Zero);
            }

            Compare(paths, sockets, floor, message, TimeSpan.FromSeconds(seconds));
        }
        finally
        {
            sockets.ForEach(socket => socket.Dispose());
            echo.Kill();
            File.Delete(echoPath);
        }
    }

    private static void Compare(
        string[] paths, List<Socket> sockets, Socket floor, byte[] message, TimeSpan duration)
    {
        Console.WriteLine("| peer | median us | 99 % us | floor: median us | of the floor | of the first |");
        Console.WriteLine("|---|---:|---:|---:|---:|---:|");
        for (int round = 0; round < Rounds; round++)
        {
            double bare = At(Measure(floor, [.. message], 0, duration), 0.5);
            double first = 0;
            for (int i = 0; i < paths.Length; i++)
            {
                double[] asked = Measure(sockets[i], message, 0, duration);
                double median = At(asked, 0.5);
                first = i == 0 ? median : first;
                Console.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {Path.GetFileName(paths[i])} | {median:F2} | {At(asked, 0.99):F2} | {bare:F2} "
                    + $"| {median / bare:F2} | {median / first:F2} |"));
            }
        }
    }

    private static double Option(string[] arguments, string name, double otherwise) =>
        arguments.FirstOrDefault(text => text.StartsWith(name + '=', StringComparison.Ordinal)) is { } given
            ? double.Parse(given[(name.Length + 1)..], CultureInfo.InvariantCulture)
            : otherwise;

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

    /// <summary>Offset (u64), region (u32), count (u32), and the bytes of a write.</summary>
    private static byte[] AccessMessage(uint region, int bytes, bool isWrite)
    {
        byte[] message = Message(isWrite ? RegionWrite : RegionRead, isWrite ? 16 + bytes : 16);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(HeaderBytes + 8), region);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(HeaderBytes + 12), bytes);
        return message;
    }

    /// <summary>A server that refuses is quick, and not what is measured.</summary>
    private static void Try(Socket socket, byte[] message)
    {
        byte[] reply = new byte[4096];
        socket.Send(message);
        int count = socket.Receive(reply);
        if (count < HeaderBytes || (BinaryPrimitives.ReadUInt32LittleEndian(reply.AsSpan(8)) & ErrorFlag) != 0)
        {
            throw new IOException("the server refuses the access: give another --region or --bytes");
        }
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

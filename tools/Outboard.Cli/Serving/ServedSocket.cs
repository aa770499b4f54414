// The socket a back-end serves, in the ways in which it may come:
//   --socket-path=PATH        bound here; the file is removed at the end
//   --fd=N, connected         one front-end; the program ends when it goes away
//   --fd=N, listening         any number of front-ends, one after another
//   LISTEN_FDS=1              as --fd=3, by socket activation; only when no option is given
//   --vfio-user-socket=PATH   bound here, for the other protocol: any number of clients, one after another
using System.Globalization;
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.Cli.Serving;

/// <summary>A socket to serve: either <see cref="Listener"/> or <see cref="Connection"/> is there.</summary>
internal sealed class ServedSocket : IDisposable
{
    /// <summary>The first descriptor after the standard streams; socket activation begins with it.</summary>
    private const int FirstDescriptor = 3;

    private ServedSocket(string name, UnixListener? listener, UnixSocket? connection)
    {
        Name = name;
        Listener = listener;
        Connection = connection;
    }

    /// <summary>What it is, for messages.</summary>
    public string Name { get; }

    /// <summary>A socket that listens.</summary>
    public UnixListener? Listener { get; }

    /// <summary>A socket that is connected.</summary>
    public UnixSocket? Connection { get; }

    /// <summary>Whether the device is served as a PCI function over vfio-user.</summary>
    public bool IsVfioUser { get; private init; }

    /// <summary>Opens what the options name.</summary>
    /// <exception cref="CommandLineException">None or two are given, or the descriptor cannot be served.</exception>
    /// <exception cref="IOException">The path cannot be bound.</exception>
    public static ServedSocket Open(string? path, int? number, string? vfioUserPath = null)
    {
        if (vfioUserPath is not null)
        {
            return path is null && number is null
                ? new ServedSocket(vfioUserPath, FunctionServer.Bind(vfioUserPath), connection: null)
                {
                    IsVfioUser = true,
                }
                : throw new CommandLineException(
                    $"--vfio-user-socket={vfioUserPath} excludes --socket-path and --fd: give one of them");
        }

        if (path is not null && number is not null)
        {
            throw new CommandLineException(
                $"--socket-path={path} and --fd={number} exclude each other: give one of them");
        }

        if (path is not null)
        {
            return Bind(path);
        }

        if (number is not null)
        {
            return Inherit(number.Value, $"--fd={number}");
        }

        return IsActivated()
            ? Inherit(FirstDescriptor, "LISTEN_FDS=1")
            : throw new CommandLineException("no socket: give --socket-path=PATH, --fd=N or --vfio-user-socket=PATH");
    }

    public void Dispose()
    {
        Listener?.Dispose();
        Connection?.Dispose();
    }

    private static ServedSocket Bind(string path)
    {
        try
        {
            return new ServedSocket(path, UnixListener.Bind(path), connection: null);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new IOException($"--socket-path={path}: {error.Message}", error);
        }
    }

    private static ServedSocket Inherit(int number, string option)
    {
        if (number < FirstDescriptor)
        {
            throw new CommandLineException(
                $"{option}: 0, 1 and 2 are the standard streams; pass the socket as 3 or above");
        }

        FileDescriptor descriptor;
        try
        {
            descriptor = FileDescriptor.FromInherited(number);
        }
        catch (LinuxException)
        {
            throw new CommandLineException(
                $"{option}: descriptor {number} is not open; let the starting program pass it on");
        }

        if (!UnixSocket.IsUnixStream(descriptor))
        {
            FileKind kind = descriptor.Kind;
            descriptor.Dispose();
            string what = kind == FileKind.Socket ? "another kind of socket" : $"no socket but of the kind {kind}";
            throw new CommandLineException($"{option}: {what}; pass a UNIX stream socket, connected or listening");
        }

        string name = $"descriptor {number}";
        return UnixListener.IsListening(descriptor)
            ? new ServedSocket(name, UnixListener.FromInherited(descriptor), connection: null)
            : new ServedSocket(name, listener: null, new UnixSocket(descriptor));
    }

    /// <summary>Whether sockets were passed, to this very process (the variables are inherited by children).</summary>
    private static bool IsActivated()
    {
        string? count = Environment.GetEnvironmentVariable("LISTEN_FDS");
        string? process = Environment.GetEnvironmentVariable("LISTEN_PID");
        if (count is null || process != Environment.ProcessId.ToString(CultureInfo.InvariantCulture))
        {
            return false;
        }

        return count == "1"
            ? true
            : throw new CommandLineException($"LISTEN_FDS={count}: one socket is served; pass one");
    }
}

// What a client has mapped for its server: to answer DMA messages from it, and to map it again for the next server.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>The windows of a client. All members may be called from any thread.</summary>
internal sealed class ClientMemory : IDisposable
{
    private readonly Lock _lock = new();
    private readonly List<ClientWindow> _windows = [];

    public void Dispose()
    {
        lock (_lock)
        {
            foreach (ClientWindow window in _windows)
            {
                window.Dispose();
            }

            _windows.Clear();
        }
    }

    internal ClientWindow[] Snapshot()
    {
        lock (_lock)
        {
            return [.. _windows];
        }
    }

    internal void Add(ClientWindow window)
    {
        lock (_lock)
        {
            _windows.Add(window);
        }
    }

    internal void Remove(ulong address, ulong sizeBytes)
    {
        lock (_lock)
        {
            int place = _windows.FindIndex(window => window.Address == address && window.SizeBytes == sizeBytes);
            if (place >= 0)
            {
                _windows[place].Dispose();
                _windows.RemoveAt(place);
            }
        }
    }

    /// <summary>Carries a DMA message out; a transfer ends where its window ends.</summary>
    internal (int Errno, byte[] Reply) Serve(VfioUserMessage message)
    {
        DmaAccessPayload access = message.Read<DmaAccessPayload>();
        bool isRead = message.Header.Command == VfioUserCommand.DmaRead;
        ReadOnlySpan<byte> data = message.Payload.Span[DmaAccessPayload.Bytes..];
        if (access.Count > VersionCapabilities.MaxTransferBytes || (ulong)data.Length != (isRead ? 0 : access.Count))
        {
            return (Errno.InvalidArgument, []);
        }

        lock (_lock)
        {
            ClientWindow? window = _windows.Find(known => access.Address - known.Address < known.SizeBytes);
            if (window is null)
            {
                return (Errno.BadAddress, []);
            }

            if ((window.Flags & (isRead ? DmaMapFlags.Read : DmaMapFlags.Write)) == 0)
            {
                return (Errno.NotPermitted, []);
            }

            ulong offset = access.Address - window.Address;
            int count = (int)Math.Min(access.Count, window.SizeBytes - offset);
            Span<byte> memory = window.Mapping.Segment.Slice((long)offset, count).Span;
            byte[] reply = new byte[DmaAccessPayload.Bytes + (isRead ? count : 0)];
            MemoryMarshal.Write(reply, access with { Count = (ulong)count });
            if (isRead)
            {
                memory.CopyTo(reply.AsSpan(DmaAccessPayload.Bytes));
            }
            else
            {
                data[..count].CopyTo(memory);
            }

            return (0, reply);
        }
    }
}

/// <summary>A window: memory of the client's, and whether the server gets it or has to ask.</summary>
internal sealed class ClientWindow(
    ulong address, ulong sizeBytes, DmaMapFlags flags, FileDescriptor memory, ulong offset, bool isShared) : IDisposable
{
    internal ulong Address => address;

    internal ulong SizeBytes => sizeBytes;

    internal DmaMapFlags Flags => flags;

    /// <summary>The descriptor, owned here.</summary>
    internal FileDescriptor Memory => memory;

    internal ulong Offset => offset;

    /// <summary>Whether the server gets the descriptor.</summary>
    internal bool IsShared => isShared;

    internal MemoryMapping Mapping { get; } = MemoryMapping.Map(memory, offset, sizeBytes);

    public void Dispose()
    {
        Mapping.Dispose();
        memory.Dispose();
    }
}

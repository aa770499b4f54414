// The front-end's directory of shared objects, asked on the back-end's channel. A question that cannot be asked, or is
// not answered, finds nothing: the device goes on without the object.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Backend;

/// <summary>The directory as requests to the front-end.</summary>
internal sealed class SharedObjectChannel(BackendChannel channel) : ISharedObjectDirectory
{
    public Task<bool> AddAsync(Guid name) => DoAsync(BackendRequest.SharedObjectAdd, name);

    public Task<bool> RemoveAsync(Guid name) => DoAsync(BackendRequest.SharedObjectRemove, name);

    public async Task<SharedMemory?> LookUpAsync(Guid name)
    {
        try
        {
            using VhostUserMessage reply =
                await channel.AskAsync(BackendRequest.SharedObjectLookup, Payload(name)).ConfigureAwait(false);
            return IsDone(reply) && reply.Attachments.Count == 1 ? reply.Attachments[0].ToSharedMemory() : null;
        }
        catch (IOException)
        {
            return null;
        }
    }

    private async Task<bool> DoAsync(BackendRequest request, Guid name)
    {
        try
        {
            using VhostUserMessage reply = await channel.AskAsync(request, Payload(name)).ConfigureAwait(false);
            return IsDone(reply);
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static bool IsDone(VhostUserMessage reply) =>
        reply.Payload.Length == sizeof(ulong) && BinaryPrimitives.ReadUInt64LittleEndian(reply.Payload.Span) == 0;

    private static byte[] Payload(Guid name) => name.ToByteArray(bigEndian: true);
}

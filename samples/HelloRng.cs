#:project ../src/Outboard.VhostUser/Outboard.VhostUser.csproj
// A whole entropy device, virtio-v1.3 "5.4 Entropy Device": the guest posts writable buffers, the device fills them.
using System.Security.Cryptography;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

await VhostUserBackend.ServeAsync(new EntropyDevice(), args[0]);

internal sealed class EntropyDevice() : VirtioDevice(VirtioDeviceId.Entropy, queueSizes: [256])
{
    protected override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        foreach (Span<byte> buffer in chain.Writable)
        {
            RandomNumberGenerator.Fill(buffer);
        }

        return (uint)chain.Writable.Length;
    }
}

#:project ../src/Outboard.VhostUser/Outboard.VhostUser.csproj
// A whole front-end: asks any vhost-user entropy back-end for 32 random bytes, without a virtual machine.
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;

await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(args[0]);
using DriverMemory memory = new(1 << 20);
await frontend.ShareMemoryAsync(memory);
using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory);

DriverBuffer buffer = memory.Allocate(32);
queue.Ring.TryAdd([], [buffer], token: 1);
queue.Submit();
uint written;
while (!queue.Ring.TryCollect(out _, out written))
{
    queue.WaitForUsed(timeoutMs: 1000);
}

Console.WriteLine($"{written} random bytes: {Convert.ToHexString(buffer.Span)}");
await frontend.StopQueueAsync(queue);

// What of a worker's thread waits for messages: guest memory that is not mapped. It goes on on this thread, and what it
// throws is thrown here.
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;

namespace Outboard.Devices.Nvme;

internal sealed partial class NvmeWorker
{
    /// <summary>Reads guest memory, by messages where it is not mapped; then goes on on this thread.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    internal async ValueTask<bool> TryReadGuestAsync(ulong address, Memory<byte> destination)
    {
        bool isDone = await Controller.TryReadGuestAsync(address, destination).ConfigureAwait(false);
        await new ReturnAwaitable(this);
        return isDone;
    }

    /// <summary>Writes guest memory; as <see cref="TryReadGuestAsync"/>.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    internal async ValueTask<bool> TryWriteGuestAsync(ulong address, ReadOnlyMemory<byte> source)
    {
        bool isDone = await Controller.TryWriteGuestAsync(address, source).ConfigureAwait(false);
        await new ReturnAwaitable(this);
        return isDone;
    }

    /// <summary>Lets something of this thread go on by itself; whatever it throws is this program's fault.</summary>
    internal void Observe(Task running)
    {
        if (!running.IsCompletedSuccessfully)
        {
            _ = ObserveAsync(running);
        }
    }

    private async Task ObserveAsync(Task running)
    {
#pragma warning disable CA1031 // Thrown on the thread, which knows what to do with it.
        try
        {
            await running.ConfigureAwait(false);
        }
        catch (Exception error)
        {
            Post(() => ExceptionDispatchInfo.Throw(error));
        }
#pragma warning restore CA1031
    }

    /// <summary>Goes on on the worker's thread.</summary>
    private readonly struct ReturnAwaitable(NvmeWorker worker) : ICriticalNotifyCompletion
    {
        public bool IsCompleted => Thread.CurrentThread == worker._thread;

        public ReturnAwaitable GetAwaiter() => this;

        public void GetResult()
        {
        }

        public void OnCompleted(Action continuation) => worker.Post(continuation);

        public void UnsafeOnCompleted(Action continuation) => worker.Post(continuation);
    }
}

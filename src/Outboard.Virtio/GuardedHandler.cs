// A handler as a running queue calls it: the handler is a device's code, and what it throws is this program's own bug
// (law 7). The first failure is told to the queue, which parks; a failed handler is asked nothing any more, but told of
// its file operations, disposed, and that is all. Entering a try block costs nothing on the way of a request.
namespace Outboard.Virtio;

/// <summary>Calls a handler and catches what it throws. On the queue's thread.</summary>
/// <param name="handler">The device's handler.</param>
/// <param name="failed">Hears of the first failure.</param>
#pragma warning disable CA1031 // Whatever a device throws parks its queue.
internal sealed class GuardedHandler(QueueHandler handler, Action<Exception> failed)
{
    /// <summary>Whether the handler threw.</summary>
    internal bool HasFailed { get; private set; }

    internal bool HasBacklog => !HasFailed && handler.HasBacklog;

    internal bool WantsChains => handler.WantsChains;

    internal int EarlyLimit => handler.EarlyLimit;

    /// <summary>A failed handler is not asked: nobody knows what it does, and nothing can be waited for.</summary>
    internal bool HoldsMemory => !HasFailed && handler.HoldsMemory;

    internal int Drain(int limit)
    {
        try
        {
            return handler.Drain(limit);
        }
        catch (Exception error)
        {
            Fail(error);
            return 0;
        }
    }

    internal void Retry()
    {
        try
        {
            handler.Retry();
        }
        catch (Exception error)
        {
            Fail(error);
        }
    }

    internal void OnFileCompletion(uint tag, int result)
    {
        try
        {
            handler.OnFileCompletion(tag, result);
        }
        catch (Exception error)
        {
            Fail(error);
        }
    }

    internal void OnEnabled(bool enabled) => Tell(enabled
        ? static handler => handler.OnEnabled(true)
        : static handler => handler.OnEnabled(false));

    internal void OnReady() => Tell(static handler => handler.OnReady());

    internal void OnKick() => Tell(static handler => handler.OnKick());

    /// <summary>Told to a failed handler, too: it may be all that ends its operations.</summary>
    internal void Quiesce() => Run(handler.Quiesce);

    internal void Dispose() => Run(handler.Dispose);

    /// <summary>Runs code that belongs to the handler.</summary>
    internal void Run(Action action)
    {
        try
        {
            action();
        }
        catch (Exception error)
        {
            Fail(error);
        }
    }

    internal void Fail(Exception error)
    {
        if (!HasFailed)
        {
            HasFailed = true;
            failed(error);
        }
    }

    private void Tell(Action<QueueHandler> news)
    {
        if (HasFailed)
        {
            return;
        }

        try
        {
            news(handler);
        }
        catch (Exception error)
        {
            Fail(error);
        }
    }
}

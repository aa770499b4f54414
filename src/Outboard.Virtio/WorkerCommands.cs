// What other threads ask a worker's thread to do: a queue of actions, and an eventfd that wakes the worker for them.
// Control plane only: posting allocates.
using System.Collections.Concurrent;
using Outboard.Linux;
using Outboard.Linux.Events;

namespace Outboard.Virtio;

/// <summary>Actions for one thread. Posted from any thread, run by the one.</summary>
public sealed class WorkerCommands : IDisposable
{
    private readonly ConcurrentQueue<Action> _actions = new();
    private readonly EventFd _wake = new();
    private readonly Lock _wakeLock = new();
    private bool _isDisposed;

    /// <summary>Readable when something was posted.</summary>
    public FileDescriptor Descriptor => _wake.Descriptor;

    /// <summary>Whether nothing waits to be run.</summary>
    public bool IsEmpty => _actions.IsEmpty;

    /// <summary>Queues an action; after the end nobody is disturbed.</summary>
    public void Post(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        _actions.Enqueue(action);
        lock (_wakeLock)
        {
            if (!_isDisposed)
            {
                _wake.Signal();
            }
        }
    }

    /// <summary>Queues an action; the task completes when it was run, and fails as it fails.</summary>
    public Task<bool> InvokeAsync(Action action)
    {
        TaskCompletionSource<bool> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(() =>
        {
#pragma warning disable CA1031 // The failure belongs to the caller, who awaits it.
            try
            {
                action();
                done.SetResult(true);
            }
            catch (Exception error)
            {
                done.SetException(error);
            }
#pragma warning restore CA1031
        });
        return done.Task;
    }

    /// <summary>Runs what was posted. On the one thread.</summary>
    public void RunAll()
    {
        while (_actions.TryDequeue(out Action? action))
        {
            action();
        }
    }

    /// <summary>Takes the wake-up. On the one thread.</summary>
    public void OnWake() => _wake.Take();

    /// <summary>Ends the wake-ups; the thread has ended.</summary>
    public void Dispose()
    {
        lock (_wakeLock)
        {
            _isDisposed = true;
            _wake.Dispose();
        }
    }
}

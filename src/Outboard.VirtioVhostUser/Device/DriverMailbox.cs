// Messages that wait for a buffer of the driver's. What is cleared is never delivered afterwards: taking a message,
// writing it and publishing it are one step under the lock, so that the end of a session is an exact cut. Messages can
// be held back as a whole, until the driver has said that it knows whose they are.
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>Messages to the driver, in order. All members may be called from any thread.</summary>
internal sealed class DriverMailbox
{
    /// <summary>
    /// Messages that nobody waits for (refusals of the driver's own requests); more are dropped, as a driver that takes
    /// none reads no answers either.
    /// </summary>
    private const int MaxPosted = 64;

    private readonly Lock _lock = new();
    private readonly Queue<(byte[] Bytes, TaskCompletionSource<bool>? Done)> _letters = new();
    private Action? _wake;
    private bool _isHeld;

    /// <summary>Who looks when there is something.</summary>
    internal void SetReader(Action? wake)
    {
        lock (_lock)
        {
            _wake = wake;
        }
    }

    /// <summary>Whether there is nothing to be given now.</summary>
    internal bool IsEmpty
    {
        get
        {
            lock (_lock)
            {
                return _isHeld || _letters.Count == 0;
            }
        }
    }

    /// <summary>Messages that wait, held back or not.</summary>
    internal int Count
    {
        get
        {
            lock (_lock)
            {
                return _letters.Count;
            }
        }
    }

    /// <summary>Hands a message to the driver.</summary>
    /// <returns>When it lies in a buffer of the driver's: true; false when it was cleared before.</returns>
    internal Task<bool> DeliverAsync(DriverFrame frame)
    {
        TaskCompletionSource<bool> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Enqueue(frame.Encode(), done);
        return done.Task;
    }

    /// <summary>As <see cref="DeliverAsync"/>, and nobody waits.</summary>
    internal void Post(DriverFrame frame) => Enqueue(frame.Encode(), null);

    /// <summary>Has the driver get an empty buffer.</summary>
    internal void PostEnd() => Enqueue([], null);

    /// <summary>Holds messages back from now on, or lets them go.</summary>
    internal void Hold(bool holds)
    {
        lock (_lock)
        {
            _isHeld = holds;
            if (!holds)
            {
                _wake?.Invoke();
            }
        }
    }

    /// <summary>Drops all messages; what comes next is not held back.</summary>
    internal void Clear()
    {
        lock (_lock)
        {
            _isHeld = false;
            while (_letters.TryDequeue(out (byte[] Bytes, TaskCompletionSource<bool>? Done) letter))
            {
                letter.Done?.TrySetResult(false);
            }
        }
    }

    /// <summary>Gives the next message to a buffer.</summary>
    /// <param name="write">Takes a buffer, writes and publishes; false when there is none.</param>
    /// <returns>Whether one was given.</returns>
    internal bool TryGive(Func<byte[], bool> write)
    {
        lock (_lock)
        {
            if (_isHeld || !_letters.TryPeek(out (byte[] Bytes, TaskCompletionSource<bool>? Done) letter)
                || !write(letter.Bytes))
            {
                return false;
            }

            _letters.Dequeue();
            letter.Done?.TrySetResult(true);
            return true;
        }
    }

    private void Enqueue(byte[] bytes, TaskCompletionSource<bool>? done)
    {
        lock (_lock)
        {
            if (done is not null || _letters.Count < MaxPosted)
            {
                _letters.Enqueue((bytes, done));
                _wake?.Invoke();
            }
        }
    }
}

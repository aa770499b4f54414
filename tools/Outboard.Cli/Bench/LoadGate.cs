// Keeps the threads of a load from their rings while somebody else has them: after a back-end died that kept no record
// of what it held, its requests are submitted again from here.
namespace Outboard.Cli.Bench;

/// <summary>A gate that all threads of a load pass.</summary>
/// <param name="threads">Threads that pass.</param>
internal sealed class LoadGate(int threads) : IDisposable
{
    private readonly Lock _lock = new();
    private readonly ManualResetEventSlim _open = new(initialState: true);
    private readonly SemaphoreSlim _allWait = new(0);
    private Exception? _failure;
    private volatile bool _isClosed;
    private int _waiting;

    /// <summary>Whether a thread has to call <see cref="Pass"/> before it uses its ring.</summary>
    public bool IsClosed => _isClosed;

    /// <summary>Waits until the gate is open.</summary>
    /// <exception cref="IOException">It will never be.</exception>
    public void Pass()
    {
        Arrive();
        _open.Wait();
        if (_failure is { } failure)
        {
            throw new IOException(failure.Message, failure);
        }
    }

    /// <summary>A thread ends, and uses its ring no more.</summary>
    public void Leave()
    {
        lock (_lock)
        {
            threads--;
            TellIfAllWait();
        }
    }

    /// <summary>Closes the gate, and waits until every thread stands before it.</summary>
    public Task CloseAsync()
    {
        lock (_lock)
        {
            _waiting = 0;
            _open.Reset();
            _isClosed = true;
            TellIfAllWait();
        }

        return _allWait.WaitAsync();
    }

    /// <summary>Opens the gate.</summary>
    public void Open()
    {
        lock (_lock)
        {
            _isClosed = false;
            _open.Set();
        }
    }

    /// <summary>Ends the load of every thread that comes to the gate.</summary>
    public void Fail(Exception failure)
    {
        lock (_lock)
        {
            _failure = failure;
            _isClosed = true;
            _open.Set();
        }
    }

    public void Dispose()
    {
        _open.Dispose();
        _allWait.Dispose();
    }

    private void Arrive()
    {
        lock (_lock)
        {
            _waiting++;
            TellIfAllWait();
        }
    }

    private void TellIfAllWait()
    {
        if (_isClosed && _waiting == threads && _failure is null)
        {
            _allWait.Release();
        }
    }
}

// An exchange of messages that stands for "something happened": while one is going on, whatever happens next becomes
// one more. Nothing is lost, and nothing piles up behind a peer that is slow.
//
// States: idle -> running -> idle, or running -> again -> running. Only whoever leaves idle starts the exchange.
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Channel;

/// <summary>Repeats an exchange as often as needed.</summary>
internal sealed class RepeatedExchange(Func<Task> exchange)
{
    private const int Idle = 0;
    private const int Running = 1;
    private const int Again = 2;

    private int _state;

    /// <summary>Asks for the exchange. From any thread; waits for nothing.</summary>
    internal void Request()
    {
        while (true)
        {
            int state = Volatile.Read(ref _state);
            int next = state == Idle ? Running : Again;
            if (Interlocked.CompareExchange(ref _state, next, state) == state)
            {
                if (state == Idle)
                {
                    _ = RunAsync();
                }

                return;
            }
        }
    }

    private async Task RunAsync()
    {
        try
        {
            do
            {
                Volatile.Write(ref _state, Running);
                await exchange().ConfigureAwait(false);
            }
            while (Interlocked.CompareExchange(ref _state, Idle, Running) != Running);
        }
        catch (Exception error) when (error is IOException or ProtocolException or ObjectDisposedException)
        {
            // No connection, or not any more; whoever uses it hears of that. The next request tries again.
            Volatile.Write(ref _state, Idle);
        }
    }
}

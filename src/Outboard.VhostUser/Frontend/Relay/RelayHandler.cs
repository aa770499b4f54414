// Serves one of a RelayedDevice's queues: forwards chains to the back-end's ring, completes them when that has.
using Outboard.Virtio;
using Outboard.Virtio.Queue;

namespace Outboard.VhostUser.Frontend.Relay;

internal sealed class RelayHandler : QueueHandler
{
    private readonly RelayQueue _relay;
    private readonly Virtqueue _queue;
    private bool _isFull;
    private bool _isQuiescing;

    internal RelayHandler(RelayQueue relay, QueueContext context)
    {
        _relay = relay;
        _queue = context.Queue;
        context.Watch(relay.Waitable);
        relay.Collect();
    }

    public override bool WantsChains => !_isFull && !_relay.IsLost;

    public override int Drain(int limit)
    {
        _isQuiescing = false;
        int taken = 0;
        while (taken < limit && WantsChains)
        {
            ushort position = _queue.Position;
            if (!_queue.TryTake(out DescriptorChain chain))
            {
                break;
            }

            taken++;
            switch (_relay.TryForward(in chain))
            {
                case RelayOutcome.NoRoom:
                    _queue.PutBack(chain.Detach(), position);
                    _isFull = true;
                    break;
                case RelayOutcome.TooLong:
                    chain.Complete(0);
                    break;
            }
        }

        if (taken > 0)
        {
            _relay.Queue.Submit();
        }

        return taken;
    }

    /// <summary>The back-end called, or is gone.</summary>
    public override void OnReady()
    {
        if (_relay.Collect())
        {
            _isFull = false;
        }

        if (_isQuiescing && _relay.IsLost)
        {
            _relay.LetGo();
        }
    }

    /// <summary>What the back-end has comes to its end there; what a lost one had is let go.</summary>
    public override void Quiesce()
    {
        _isQuiescing = true;
        if (_relay.IsLost)
        {
            _relay.LetGo();
        }
    }

    public override void Dispose()
    {
        _relay.Orphan();
        base.Dispose();
    }
}

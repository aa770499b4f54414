// The vectors of one group of interrupts: bound lines, masks, what is pending.
//
// A vector is held back by any of: the client's mask (SET_IRQS), its own automatic mask (INTx: after each signal, until
// unmasked, as VFIO does it for a level), or the gate of the group (the function's own mask bits). What is triggered
// meanwhile is pending, and is signalled once when nothing holds it back any more. A level that is still asserted
// counts as pending. A level that falls takes back the signal that the client has not seen yet: the client would
// assert the guest's pin for nothing, and QEMU releases that only when the guest touches a BAR, which a driver that
// finds nothing to do does not. For the same reason an unmask that only says that the guest touched a BAR
// (UnmaskByAccess) waits a moment while the level is still there: the guest's handler is about to take what is left.
//
// Triggers come from any thread and meet changes of the binding, so each goes through a short lock: a line must not be
// closed, and its number reused, between the look and the signal. One call of a queue is one trigger for many requests.
using Outboard.Linux.Events;

namespace Outboard.Pci.Interrupts;

/// <summary>The vectors of one kind. All members may be called from any thread.</summary>
public sealed class InterruptVectors
{
    /// <summary>
    /// How long a guest's handler may take from one access of the device to its next: long for a handler, even on a
    /// machine that is emulated and busy, and short for whoever waits for an interrupt that did have to be repeated.
    /// </summary>
    private static readonly TimeSpan s_handlerTime = TimeSpan.FromMilliseconds(2);

    private readonly Lock _lock = new();
    private readonly Vector[] _vectors;
    private long _bindings;

    internal InterruptVectors(int count) => _vectors = new Vector[count];

    /// <summary>Raised, inside the lock, when a vector becomes or ceases to be pending.</summary>
    internal event Action<int, bool>? PendingChanged;

    /// <summary>Number of vectors.</summary>
    public int Count => _vectors.Length;

    /// <summary>Whether a vector masks itself with each signal, until it is unmasked: INTx with a level.</summary>
    public bool IsAutoMasked { get; internal init; }

    /// <summary>Whether the function's own masks hold a vector back; called inside the lock.</summary>
    internal Func<int, bool>? Gate { get; set; }

    /// <summary>Whether the client listens to a vector.</summary>
    public bool IsBound(int vector)
    {
        lock (_lock)
        {
            return (uint)vector < (uint)_vectors.Length && _vectors[vector].Line is not null;
        }
    }

    /// <summary>Whether the client masked a vector.</summary>
    public bool IsMasked(int vector)
    {
        lock (_lock)
        {
            return _vectors[vector].IsMasked;
        }
    }

    /// <summary>Binds a line to a vector, or none, and disposes the one before.</summary>
    public void Bind(int vector, InterruptLine? line)
    {
        lock (_lock)
        {
            ref Vector state = ref _vectors[vector];
            state.Line?.Dispose();
            state.Line = line;
            state.Binding = ++_bindings;
            Rearm(ref state);
        }

        Deliver(vector);
    }

    /// <summary>
    /// Tells which line a vector has at present, if somebody else may signal it: another number for each binding. 0
    /// while it is not bound, something holds it back, or each signal has to pass here.
    /// </summary>
    public long Route(int vector)
    {
        lock (_lock)
        {
            return CanShare(vector) ? _vectors[vector].Binding : 0;
        }
    }

    /// <summary>The line of <see cref="Route"/>, the caller's from now on; null when that is 0.</summary>
    public EventFd? ShareLine(int vector)
    {
        lock (_lock)
        {
            return CanShare(vector) ? _vectors[vector].Line!.Share() : null;
        }
    }

    /// <summary>Raises an interrupt once.</summary>
    public TriggerOutcome Trigger(int vector)
    {
        lock (_lock)
        {
            if ((uint)vector >= (uint)_vectors.Length)
            {
                return TriggerOutcome.NoSuchVector;
            }

            ref Vector state = ref _vectors[vector];
            if (state.Line is null)
            {
                return TriggerOutcome.NotBound;
            }

            if (!IsHeld(vector))
            {
                Signal(ref state);
                state.IsLevelOut = false;
                return TriggerOutcome.Signalled;
            }

            SetPending(vector, true);
            return TriggerOutcome.Held;
        }
    }

    /// <summary>Asserts or releases a level: signalled again after each unmask for as long as it is asserted.</summary>
    public void SetLevel(int vector, bool isAsserted)
    {
        lock (_lock)
        {
            if (_vectors[vector].IsAsserted == isAsserted)
            {
                return;
            }

            ref Vector state = ref _vectors[vector];
            state.IsAsserted = isAsserted;
            bool isOver = !isAsserted && (state.IsUnmasking
                || (state is { IsLevelOut: true, Line: { } line } && line.TryWithdraw()));
            if (isOver)
            {
                Rearm(ref state);
            }
        }

        Deliver(vector);
    }

    /// <summary>Masks or unmasks a vector as the client.</summary>
    public void SetMasked(int vector, bool isMasked)
    {
        lock (_lock)
        {
            _vectors[vector].IsMasked = isMasked;
            if (!isMasked)
            {
                Rearm(ref _vectors[vector]);
            }
        }

        Deliver(vector);
    }

    /// <summary>
    /// Unmasks a vector as the client, because the guest touched the device. A level that is still asserted is
    /// signalled again a moment later, if it is then.
    /// </summary>
    public void UnmaskByAccess(int vector)
    {
        lock (_lock)
        {
            ref Vector state = ref _vectors[vector];
            if (state is { IsLevelOut: true, IsAsserted: true })
            {
                state.IsMasked = false;
                if (!state.IsUnmasking)
                {
                    state.IsUnmasking = true;
                    _ = UnmaskLaterAsync(vector, state.Binding);
                }

                return;
            }
        }

        SetMasked(vector, false);
    }

    /// <summary>Looks again at all vectors, after the gate changed.</summary>
    internal void DeliverAll()
    {
        for (int vector = 0; vector < _vectors.Length; vector++)
        {
            Deliver(vector);
        }
    }

    /// <summary>Forgets what is pending or asserted: a reset.</summary>
    internal void ClearPending()
    {
        for (int vector = 0; vector < _vectors.Length; vector++)
        {
            lock (_lock)
            {
                ref Vector state = ref _vectors[vector];
                state.IsAsserted = false;
                Rearm(ref state);
                SetPending(vector, false);
            }
        }
    }

    /// <summary>Lets go of lines and the client's masks: the client is gone.</summary>
    internal void Release()
    {
        lock (_lock)
        {
            foreach (ref Vector state in _vectors.AsSpan())
            {
                state.Line?.Dispose();
                state.Line = null;
                state.IsMasked = false;
                Rearm(ref state);
            }
        }
    }

    private bool CanShare(int vector) => (uint)vector < (uint)_vectors.Length
        && _vectors[vector].Line is not null && !IsAutoMasked && !IsHeld(vector);

    private bool IsHeld(int vector)
    {
        ref readonly Vector state = ref _vectors[vector];
        return state.IsMasked || state.IsAutoMasked || (Gate is { } gate && gate(vector));
    }

    private void Deliver(int vector)
    {
        lock (_lock)
        {
            ref Vector state = ref _vectors[vector];
            if (state.Line is null || !(state.IsPending || state.IsAsserted) || IsHeld(vector))
            {
                return;
            }

            bool isTriggered = state.IsPending;
            SetPending(vector, false);
            Signal(ref state);
            state.IsLevelOut = IsAutoMasked && !isTriggered;
        }
    }

    private async Task UnmaskLaterAsync(int vector, long binding)
    {
        await Task.Delay(s_handlerTime).ConfigureAwait(false);
        lock (_lock)
        {
            ref Vector state = ref _vectors[vector];
            if (!state.IsUnmasking || state.Binding != binding)
            {
                return;
            }

            Rearm(ref state);
        }

        Deliver(vector);
    }

    private static void Rearm(ref Vector state)
    {
        state.IsAutoMasked = false;
        state.IsLevelOut = false;
        state.IsUnmasking = false;
    }

    private void SetPending(int vector, bool isPending)
    {
        ref Vector state = ref _vectors[vector];
        if (state.IsPending != isPending)
        {
            state.IsPending = isPending;
            PendingChanged?.Invoke(vector, isPending);
        }
    }

    private void Signal(ref Vector state)
    {
        state.Line!.Signal();
        state.IsAutoMasked = IsAutoMasked;
    }

    private struct Vector
    {
        internal InterruptLine? Line;
        internal long Binding;
        internal bool IsMasked;
        internal bool IsAutoMasked;
        internal bool IsPending;
        internal bool IsAsserted;

        /// <summary>Whether the last signal, after which the vector masked itself, told of the level alone.</summary>
        internal bool IsLevelOut;

        /// <summary>Whether the client unmasked it, and that takes effect in a moment.</summary>
        internal bool IsUnmasking;
    }
}

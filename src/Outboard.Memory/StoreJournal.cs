// What a window stores, told before each store: with it a test kills the code that writes a ring between any two of its
// stores. A switch that is off unless a test program turns it on, and that is a constant when code is optimized:
// nothing of this is left on the way of a request.
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Outboard.Memory;

/// <summary>A journal of one thread's stores through windows.</summary>
internal sealed class StoreJournal : IDisposable
{
    private const string SwitchName = "Outboard.Memory.StoreJournal";

    [ThreadStatic]
    private static StoreJournal? t_open;

    private readonly List<Entry> _entries = [];
    private readonly int _limit;
    private readonly Action? _atLimit;
    private int _seenByOthers;

    /// <summary>Opens a journal for the calling thread.</summary>
    /// <param name="limit">Stores that are let through; the next one is not made, and throws.</param>
    /// <param name="atLimit">Done instead of throwing: it ends the process.</param>
    internal StoreJournal(int limit, Action? atLimit = null)
    {
        _limit = limit;
        _atLimit = atLimit;
        t_open = this;
    }

    /// <summary>Whether stores are told.</summary>
    [FeatureSwitchDefinition(SwitchName)]
    internal static bool IsOn { get; } = AppContext.TryGetSwitch(SwitchName, out bool isOn) && isOn;

    /// <summary>Stores so far.</summary>
    internal int Count => _entries.Count;

    /// <summary>
    /// Stores at the end of the journal whose order the language does not fix: the last release store and the plain
    /// ones after it. (A release store moves behind nothing before it; what comes after it may move before it.) What
    /// was stored before a pause counts as seen: others have acted on it.
    /// </summary>
    internal int UnorderedCount
    {
        get
        {
            int last = _entries.FindLastIndex(entry => entry.IsRelease);
            return _entries.Count - Math.Max(Math.Max(last, 0), _seenByOthers);
        }
    }

    /// <summary>Takes one of the unordered stores back.</summary>
    /// <param name="index">0 is the oldest of them.</param>
    // SAFETY: the entry's bytes were written through a window, whose memory the test keeps.
    internal unsafe void Undo(int index)
    {
        Entry entry = _entries[_entries.Count - UnorderedCount + index];
        new Span<byte>(entry.Before).CopyTo(new Span<byte>((void*)entry.Address, entry.Before.Length));
    }

    /// <summary>Lets the calling thread store untold until the result is disposed.</summary>
    internal static Interruption Pause() => new(t_open);

    /// <summary>Ends the journal.</summary>
    public void Dispose() => t_open = null;

    // SAFETY: the window checked the bounds.
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static unsafe void Tell(byte* address, int size, bool isRelease) =>
        t_open?.Note(new Entry((nuint)address, new Span<byte>(address, size).ToArray(), isRelease));

    private void Note(Entry entry)
    {
        if (_entries.Count == _limit)
        {
            _atLimit?.Invoke();
            throw new StoreLimitException();
        }

        _entries.Add(entry);
    }

    /// <summary>A journal that is not written for a while.</summary>
    internal readonly struct Interruption : IDisposable
    {
        private readonly StoreJournal? _paused;

        internal Interruption(StoreJournal? paused)
        {
            _paused = paused;
            t_open = null;
            if (paused is not null)
            {
                paused._seenByOthers = paused.Count;
            }
        }

        /// <summary>Goes on with the journal.</summary>
        public void Dispose() => t_open = _paused;
    }

    private sealed record Entry(nuint Address, byte[] Before, bool IsRelease);
}

/// <summary>The journal is full: the store was not made.</summary>
internal sealed class StoreLimitException : Exception;

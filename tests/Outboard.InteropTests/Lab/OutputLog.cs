// OutputLog.cs - collects the text that a program writes and lets a test wait until a pattern appears in it.
using System.Text;
using System.Text.RegularExpressions;

namespace Outboard.InteropTests.Lab;

internal sealed class OutputLog
{
    private const int TailLength = 4000;

    private readonly Lock _lock = new();
    private readonly StringBuilder _text = new();
    private readonly string _name;
    private TaskCompletionSource _changed = NewSignal();
    private bool _ended;

    public OutputLog(string name) => _name = name;

    public string Text
    {
        get
        {
            lock (_lock)
            {
                return _text.ToString();
            }
        }
    }

    public int Length
    {
        get
        {
            lock (_lock)
            {
                return _text.Length;
            }
        }
    }

    /// <summary>The end of the text: what to show in a message.</summary>
    public string Tail
    {
        get
        {
            string text = Text;
            return text.Length <= TailLength ? text : "[...]" + text[^TailLength..];
        }
    }

    public void Append(ReadOnlySpan<char> text)
    {
        lock (_lock)
        {
            foreach (char character in text)
            {
                if (character != '\r')
                {
                    _text.Append(character);
                }
            }

            Announce();
        }
    }

    /// <summary>Says that nothing will follow; waiting for a pattern that is not there then fails at once.</summary>
    public void End()
    {
        lock (_lock)
        {
            _ended = true;
            Announce();
        }
    }

    /// <summary>Reads a stream to its end into this log.</summary>
    public async Task CollectAsync(StreamReader reader)
    {
        char[] buffer = new char[4096];
        try
        {
            int count;
            while ((count = await reader.ReadAsync(buffer.AsMemory())) > 0)
            {
                Append(buffer.AsSpan(0, count));
            }
        }
        catch (Exception exception) when (exception is IOException or ObjectDisposedException)
        {
            // the program is being torn down
        }
        finally
        {
            End();
        }
    }

    /// <summary>Waits for a match from <paramref name="start"/> on; fails at the limit or when the text ends.</summary>
    public async Task<Match> WaitForAsync(Regex pattern, TimeSpan limit, int start = 0) =>
        await FindAsync(pattern, limit, start) ??
        throw new LabException($"{_name}: '{pattern}' did not appear within {limit}. Output:\n{Tail}");

    /// <summary>As <see cref="WaitForAsync"/>, but answers null at the limit or when the text ends.</summary>
    public async Task<Match?> FindAsync(Regex pattern, TimeSpan limit, int start = 0)
    {
        using CancellationTokenSource timer = new(limit);
        while (true)
        {
            Task changed;
            bool ended;
            string text;
            lock (_lock)
            {
                changed = _changed.Task;
                ended = _ended;
                text = _text.ToString();
            }

            Match match = pattern.Match(text, Math.Min(start, text.Length));
            if (match.Success)
            {
                return match;
            }

            if (ended)
            {
                return null;
            }

            try
            {
                await changed.WaitAsync(timer.Token);
            }
            catch (OperationCanceledException)
            {
                return null;
            }
        }
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private void Announce()
    {
        TaskCompletionSource previous = _changed;
        _changed = NewSignal();
        previous.SetResult();
    }
}

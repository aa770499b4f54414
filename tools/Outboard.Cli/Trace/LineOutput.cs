// Where the lines of a trace go: each with one write, so that nothing is kept back when the program ends, and a reader
// that is slow slows the relay down instead of losing lines.
using Outboard.Cli.Text;

namespace Outboard.Cli.Trace;

/// <summary>Writes lines. One call at a time.</summary>
internal sealed class LineOutput(Stream output)
{
    private bool _isGone;

    public void Write(ReadOnlySpan<byte> line)
    {
        if (_isGone)
        {
            return;
        }

        try
        {
            output.Write(line);
            output.Flush();
        }
        catch (IOException error)
        {
            // The relay goes on: two programs depend on it, and nobody reads this.
            _isGone = true;
            ErrorLine.Write($"outboard trace: error: nothing is written any more: {error.Message}");
        }
    }
}

// Takes C# text apart: code without comments and literals, comments without code. Both keep every line and column, so
// that a position in one is the position in the file.
using System.Text;

namespace Outboard.Tests.Tidy;

/// <summary>A C# text with parts of it blanked.</summary>
internal sealed class MaskedSource
{
    private readonly string _text;
    private readonly StringBuilder _code;
    private readonly StringBuilder _comments;
    private int _at;

    private MaskedSource(string text)
    {
        _text = text;
        _code = new StringBuilder(text);
        _comments = new StringBuilder(text.Length);
        foreach (char c in text)
        {
            _comments.Append(c == '\n' ? '\n' : ' ');
        }
    }

    /// <summary>The text without comments, preprocessor lines, and the insides of strings and characters.</summary>
    internal string Code => _code.ToString();

    /// <summary>The comments only, with their slashes.</summary>
    internal string Comments => _comments.ToString();

    internal static MaskedSource Of(string text)
    {
        MaskedSource source = new(text);
        while (source._at < text.Length)
        {
            source.Step();
        }

        return source;
    }

    private char Peek(int ahead = 0) => _at + ahead < _text.Length ? _text[_at + ahead] : '\0';

    /// <summary>One character of code, or one whole comment, literal or preprocessor line.</summary>
    private void Step()
    {
        char c = Peek();
        if (c == '/' && Peek(1) is '/' or '*')
        {
            Comment();
        }
        else if (c == '#' && IsFirstOfLine())
        {
            Blank(_at, EndOfLine());
        }
        else if (c == '\'')
        {
            Character();
        }
        else if (c == '"' || (c is '$' or '@' && Peek(LiteralPrefix()) == '"'))
        {
            Text();
        }
        else
        {
            _at++;
        }
    }

    private void Comment()
    {
        int end = Peek(1) == '/' ? EndOfLine() : _text.IndexOf("*/", _at + 2, StringComparison.Ordinal) + 2;
        end = end < _at + 2 ? _text.Length : end;
        for (int i = _at; i < end; i++)
        {
            _comments[i] = _text[i];
        }

        Blank(_at, end);
    }

    private void Character()
    {
        int end = _at + (Peek(1) == '\\' ? 3 : 2);
        while (end < _text.Length && _text[end] != '\'')
        {
            end++;
        }

        Blank(_at, end + 1);
    }

    /// <summary>A string of any kind: plain, verbatim, raw, each of them interpolated or not.</summary>
    private void Text()
    {
        int start = _at;
        int prefix = LiteralPrefix();
        int dollars = _text.AsSpan(_at, prefix).Count('$');
        bool isVerbatim = _text.AsSpan(_at, prefix).Contains('@');
        _at += prefix;
        int quotes = 0;
        while (Peek(quotes) == '"')
        {
            quotes++;
        }

        if (quotes >= 3)
        {
            _at += quotes;
            Inside(() => IsRun('"', quotes), escape: '\0', dollars, quotes);
        }
        else
        {
            _at++;
            Inside(() => Peek() == '"' && !(isVerbatim && Peek(1) == '"'), isVerbatim ? '"' : '\\', dollars, 1);
        }

        Blank(start, _at);
    }

    private void Inside(Func<bool> isEnd, char escape, int dollars, int endLength)
    {
        while (_at < _text.Length && !isEnd())
        {
            if (Peek() == escape)
            {
                _at += 2;
            }
            else if (dollars > 0 && Peek() == '{' && CountRun('{') is int run && (escape == '\0' || run % 2 == 1))
            {
                _at += run;
                Hole(run >= dollars ? dollars : 0);
            }
            else if (Peek() == '{')
            {
                _at += CountRun('{');
            }
            else
            {
                _at++;
            }
        }

        _at = Math.Min(_at + endLength, _text.Length);
    }

    /// <summary>The code inside an interpolated string, up to the braces that end it.</summary>
    private void Hole(int braces)
    {
        int depth = 0;
        while (braces > 0 && _at < _text.Length && !(depth == 0 && IsRun('}', braces)))
        {
            depth += Peek() switch { '{' or '(' or '[' => 1, '}' or ')' or ']' => -1, _ => 0 };
            Step();
        }

        _at = Math.Min(_at + braces, _text.Length);
    }

    private int LiteralPrefix()
    {
        int length = 0;
        while (Peek(length) is '$' or '@')
        {
            length++;
        }

        return length;
    }

    private bool IsRun(char c, int length)
    {
        for (int i = 0; i < length; i++)
        {
            if (Peek(i) != c)
            {
                return false;
            }
        }

        return true;
    }

    private int CountRun(char c)
    {
        int count = 0;
        while (Peek(count) == c)
        {
            count++;
        }

        return count;
    }

    private bool IsFirstOfLine()
    {
        int start = _text.LastIndexOf('\n', Math.Max(_at - 1, 0)) + 1;
        return _at == 0 || _text.AsSpan(start, Math.Max(_at - start, 0)).IsWhiteSpace();
    }

    private int EndOfLine()
    {
        int end = _text.IndexOf('\n', _at);
        return end < 0 ? _text.Length : end;
    }

    private void Blank(int start, int end)
    {
        end = Math.Min(end, _text.Length);
        for (int i = start; i < end; i++)
        {
            _code[i] = _text[i] == '\n' ? '\n' : ' ';
        }

        _at = end;
    }
}

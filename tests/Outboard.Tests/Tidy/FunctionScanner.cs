// Finds the members of every type in a masked C# text, by counting braces, and tells how many lines each one has.
//
// A member starts at its first code (attributes included) and ends at the semicolon or brace that closes it. Data
// (fields and properties whose content follows an equals sign, and tables) is no function. Statements outside of any
// type make one function, named after what they are: the program.
using System.Text.RegularExpressions;

namespace Outboard.Tests.Tidy;

/// <summary>A function and its place.</summary>
internal readonly record struct FunctionSpan(string Header, int FirstLine, int Lines);

internal sealed partial class FunctionScanner
{
    private readonly string _code;
    private readonly List<FunctionSpan> _functions = [];
    private int _programStart = -1;
    private int _programEnd;

    private FunctionScanner(string code) => _code = code;

    internal static IReadOnlyList<FunctionSpan> Find(MaskedSource source)
    {
        FunctionScanner scanner = new(source.Code);
        int at = 0;
        scanner.Members(ref at, isType: false);
        if (scanner._programStart >= 0)
        {
            scanner.Add("the program", scanner._programStart, scanner._programEnd);
        }

        return scanner._functions;
    }

    /// <summary>Everything up to the brace that closes the enclosing type or namespace.</summary>
    private void Members(ref int at, bool isType)
    {
        while (SkipBlanks(ref at) && _code[at] != '}')
        {
            Member(ref at, isType);
        }

        at++;
    }

    private void Member(ref int at, bool isType)
    {
        int start = at;
        int end = HeaderEnd(at);
        string header = _code[start..end];
        bool opens = end < _code.Length && _code[end] == '{';
        if (opens && TypeHeader().IsMatch(header) && !EnumHeader().IsMatch(header))
        {
            at = end + 1;
            Members(ref at, isType: !NamespaceHeader().IsMatch(header));
            return;
        }

        bool isData = end < _code.Length && _code[end] == '=' && IsDataAfter(end);
        at = MemberEnd(end, ref isData);
        if (UsingHeader().IsMatch(header) || TypeHeader().IsMatch(header))
        {
            return;
        }

        if (!isType)
        {
            _programStart = _programStart < 0 ? start : _programStart;
            _programEnd = at;
        }
        else if (!isData)
        {
            Add(header, start, at);
        }
    }

    /// <summary>The brace, arrow, equals sign or semicolon that ends a header, outside of parentheses.</summary>
    private int HeaderEnd(int at)
    {
        int depth = 0;
        for (; at < _code.Length; at++)
        {
            char c = _code[at];
            depth += c is '(' or '[' ? 1 : c is ')' or ']' ? -1 : 0;
            if (depth == 0 && c is '{' or ';' or '=' && !IsOperatorName(at))
            {
                return at;
            }
        }

        return at;
    }

    /// <summary>Whether what follows is a value, or an arrow and a collection: the table of a span property.</summary>
    private bool IsDataAfter(int at)
    {
        int next = at + 2;
        return !_code.AsSpan(at).StartsWith("=>") || (SkipBlanks(ref next) && _code[next] == '[');
    }

    private bool IsOperatorName(int at) =>
        OperatorName().IsMatch(_code[Math.Max(0, at - 20)..at]) && !_code.AsSpan(at).StartsWith("=>");

    /// <summary>The position after the semicolon or the brace that ends a member.</summary>
    private int MemberEnd(int at, ref bool isData)
    {
        int depth = 0;
        bool needsSemicolon = at < _code.Length && _code[at] == '=';
        for (; at < _code.Length; at++)
        {
            char c = _code[at];
            depth += c is '(' or '[' or '{' ? 1 : c is ')' or ']' or '}' ? -1 : 0;
            if (depth < 0 || (depth == 0 && c == ';'))
            {
                return depth < 0 ? at : at + 1;
            }

            if (depth == 0 && c == '}' && !needsSemicolon)
            {
                int next = at + 1;
                needsSemicolon = SkipBlanks(ref next) && _code[next] is '=' or ';' or ')';
                isData |= needsSemicolon && _code[next] == '=';
                if (!needsSemicolon)
                {
                    return at + 1;
                }
            }
        }

        return at;
    }

    private bool SkipBlanks(ref int at)
    {
        while (at < _code.Length && char.IsWhiteSpace(_code[at]))
        {
            at++;
        }

        return at < _code.Length;
    }

    private void Add(string header, int start, int end)
    {
        int firstLine = 1 + _code.AsSpan(0, start).Count('\n');
        int lines = 1 + _code.AsSpan(start, end - start).Count('\n');
        _functions.Add(new FunctionSpan(Blanks().Replace(header, " ").Trim(), firstLine, lines));
    }

    [GeneratedRegex(@"^(\s*\[[^\]]*\])*[\w\s]*\b(class|struct|interface|enum|record|namespace)\s")]
    private static partial Regex TypeHeader();

    [GeneratedRegex(@"^(\s*\[[^\]]*\])*[\w\s]*\benum\s")]
    private static partial Regex EnumHeader();

    [GeneratedRegex(@"^\s*namespace\s")]
    private static partial Regex NamespaceHeader();

    [GeneratedRegex(@"^\s*(global\s+)?using\s+(static\s+)?[\w.]+\s*$|^\s*using\s+\w+\s*$|^\s*\[assembly")]
    private static partial Regex UsingHeader();

    [GeneratedRegex(@"\boperator\s*[!=<>]?$")]
    private static partial Regex OperatorName();

    [GeneratedRegex(@"\s+")]
    private static partial Regex Blanks();
}

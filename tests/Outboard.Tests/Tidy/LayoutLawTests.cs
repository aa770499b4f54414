// Law 9: sizes of files, functions and lines, and how text is laid out.
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class LayoutLawTests
{
    private const int MaxFileLines = 500;
    private const int MaxFunctionLines = 70;
    private const int MaxColumns = 120;

    /// <summary>Columns of a specification's table, where a row is one line.</summary>
    private const int MaxTableColumns = 170;

    [Fact]
    public void Files_have_at_most_500_lines() => LawAssert.Kept(
        "A file has at most 500 lines (tables of a specification may have more)",
        Repository.Sources
            .Where(file => !file.IsSpecTable && file.Lines.Length - 1 > MaxFileLines)
            .Select(file => $"{file.Path}: {file.Lines.Length - 1} lines"));

    [Fact]
    public void Functions_have_at_most_70_lines() => LawAssert.Kept(
        "A function has at most 70 lines",
        from file in Repository.Sources
        from function in FunctionScanner.Find(file.Masked)
        where function.Lines > MaxFunctionLines
        select $"{file.Path}({function.FirstLine}): {function.Lines} lines: {function.Header}");

    [Fact]
    public void The_function_scanner_understands_every_file()
    {
        LawAssert.Kept(
            "Braces are balanced in the code of every file, as the scanner sees it",
            Repository.Sources
                .Where(file => file.Masked.Code.Count(c => c == '{') != file.Masked.Code.Count(c => c == '}'))
                .Select(file => file.Path));
        Assert.NotEmpty(Repository.Sources.SelectMany(file => FunctionScanner.Find(file.Masked)));
    }

    [Fact]
    public void Lines_have_at_most_120_columns() => LawAssert.Kept(
        "A line has at most 120 columns (a row of a specification's table 170)",
        from file in Repository.Sources
        from line in file.Lines.Select((text, index) => (text, index))
        where line.text.Length > (file.IsSpecTable ? MaxTableColumns : MaxColumns)
        select $"{file.Path}({line.index + 1}): {line.text.Length} columns");

    [Fact]
    public void There_are_no_tabs_and_no_trailing_blanks() => LawAssert.Kept(
        "No tabs, no carriage returns, no blanks at the end of a line",
        from file in Repository.Sources
        from line in file.Lines.Select((text, index) => (text, index))
        where line.text.AsSpan().IndexOfAny('\t', '\r') >= 0 || line.text.EndsWith(' ')
        select $"{file.Path}({line.index + 1})");

    [Fact]
    public void Files_end_in_one_newline() => LawAssert.Kept(
        "A file ends in exactly one newline",
        Repository.Sources
            .Where(file => !file.Text.EndsWith('\n') || file.Text.EndsWith("\n\n", StringComparison.Ordinal))
            .Select(file => file.Path));

    [Fact]
    public void Products_open_with_a_comment_that_tells_their_purpose() => LawAssert.Kept(
        "A file of src opens with a // comment that tells its purpose",
        Repository.Sources
            .Where(file => file.IsUnder("src") && !file.Text.StartsWith("// ", StringComparison.Ordinal))
            .Select(file => file.Path));
}

// What no tracked file may contain: paths of somebody's machine, hosts of package registries. And what every public
// member of a product has: documentation (the compiler enforces it, unless a project switches that off).
using System.Text.RegularExpressions;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed partial class ContentLawTests
{
    /// <summary>Written in parts, so that this file does not break the law that it checks.</summary>
    private static readonly string[] s_banned =
        ["/wo" + "rk/", "/ro" + "ot/", "nuget" + ".org", "deb.debian" + ".org", "npm" + "js"];

    [Fact]
    public void No_file_names_a_machine_or_a_registry() => LawAssert.Kept(
        "No path of one machine and no registry's host",
        from file in Repository.Files
        from line in file.Lines.Select((text, index) => (text, index))
        where s_banned.Any(banned => NamesPath(line.text, banned)) || HomeFolder().IsMatch(line.text)
        select $"{file.Path}({line.index + 1}): {line.text.Trim()}");

    [Fact]
    public void No_product_switches_documentation_off() => LawAssert.Kept(
        "Products keep the compiler's check of documentation",
        from file in Repository.Files
        where file.IsUnder("src")
        where file.Text.Contains("CS1591", StringComparison.Ordinal)
            || file.Text.Contains("GenerateDocumentationFile", StringComparison.Ordinal)
        select file.Path);

    [Fact]
    public void No_documentation_is_empty() => LawAssert.Kept(
        "A summary says something, and ends in a full stop",
        from file in Repository.Sources
        where file.IsUnder("src")
        from Match match in Summary().Matches(file.Masked.Comments)
        let text = NextCommentLine().Replace(match.Groups["text"].Value, " ").Trim()
        where !text.EndsWith('.')
        select $"{file.Path}: \"{text}\"");

    private static bool NamesPath(string line, string banned)
    {
        int at = line.IndexOf(banned, StringComparison.Ordinal);
        return at >= 0 && (banned[0] != '/' || at == 0 || !IsPathCharacter(line[at - 1]));
    }

    private static bool IsPathCharacter(char c) => char.IsLetterOrDigit(c) || c is '.' or '_' or '-' or '}' or '$';

    [GeneratedRegex(@"(?<![\w.}])/home/[a-z]")]
    private static partial Regex HomeFolder();

    [GeneratedRegex(@"<summary>(?<text>.*?)</summary>", RegexOptions.Singleline)]
    private static partial Regex Summary();

    [GeneratedRegex(@"\s*\n?\s*///\s*")]
    private static partial Regex NextCommentLine();
}

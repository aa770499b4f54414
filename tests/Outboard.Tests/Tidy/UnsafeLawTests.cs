// Law 1: unsafe code lives in two islands, and says there why it is right.
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed partial class UnsafeLawTests
{
    private static readonly string[] s_islands = ["src/Outboard.Linux", "src/Outboard.Memory"];

    private static readonly string[] s_islandProjects =
        ["src/Outboard.Linux/Outboard.Linux.csproj", "src/Outboard.Memory/Outboard.Memory.csproj"];

    [Fact]
    public void Unsafe_code_is_in_the_islands_only() => LawAssert.Kept(
        "unsafe occurs in Outboard.Linux and Outboard.Memory only",
        from file in Repository.Sources
        where !file.IsUnder(s_islands)
        from place in Unsafe(file)
        select $"{file.Path}({place + 1})");

    [Fact]
    public void Only_the_islands_allow_unsafe_code()
    {
        LawAssert.Kept(
            "Only the two islands declare themselves one; no project allows unsafe code in another way",
            from file in Repository.Files
            where file.Path.EndsWith("proj", StringComparison.Ordinal)
            from element in XDocument.Parse(file.Text).Descendants()
            where element.Name.LocalName is "AllowUnsafeBlocks"
                || (element.Name.LocalName is "OutboardUnsafeIsland" && !s_islandProjects.Contains(file.Path))
            select $"{file.Path}: {element.Name.LocalName}");
        Assert.All(
            s_islandProjects,
            path => Assert.Contains(
                Repository.Files,
                file => file.Path == path && file.Text.Contains("OutboardUnsafeIsland", StringComparison.Ordinal)));
    }

    [Fact]
    public void Unsafe_code_says_why_it_is_safe() => LawAssert.Kept(
        "A // SAFETY: comment stands directly above every unsafe function, block or type (imports have no code)",
        from file in Repository.Sources
        where file.IsUnder(s_islands)
        from place in Unsafe(file)
        where !IsImport(file, place) && !HasReason(file, place)
        select $"{file.Path}({place + 1}): {file.Lines[place].Trim()}");

    [Theory]
    [InlineData("// SAFETY: because\n[X]\n/// <summary>a</summary>\nunsafe void F() { }", true)]
    [InlineData("// SAFETY: because\n// of this\nunsafe\n{\n}", true)]
    [InlineData("// SAFETY: because\nint x;\nunsafe\n{\n}", false)]
    [InlineData("/// SAFETY: because\nunsafe void F() { }", false)]
    [InlineData("unsafe void F() { }", false)]
    public void A_reason_is_seen(string text, bool hasReason)
    {
        RepositoryFile file = new("a.cs", text);
        Assert.Equal(hasReason, HasReason(file, Assert.Single(Unsafe(file))));
    }

    private static IEnumerable<int> Unsafe(RepositoryFile file) =>
        file.Masked.Code.Split('\n').Index().Where(line => UnsafeWord().IsMatch(line.Item)).Select(line => line.Index);

    private static bool IsImport(RepositoryFile file, int line) =>
        UnsafeImport().IsMatch(file.Lines[line])
        && file.Lines[..line].Reverse().TakeWhile(IsAnnotation)
            .Any(text => text.Contains("Import(", StringComparison.Ordinal));

    private static bool HasReason(RepositoryFile file, int line) =>
        file.Lines[..line].Reverse().TakeWhile(IsAnnotation)
            .Any(text => text.TrimStart().StartsWith("// SAFETY: ", StringComparison.Ordinal));

    private static bool IsAnnotation(string line) =>
        line.TrimStart().StartsWith("//", StringComparison.Ordinal) || Attribute().IsMatch(line);

    [GeneratedRegex(@"\bunsafe\b")]
    private static partial Regex UnsafeWord();

    [GeneratedRegex(@"\bunsafe\b.*\bpartial\b")]
    private static partial Regex UnsafeImport();

    [GeneratedRegex(@"^\s*\[.*\]\s*$")]
    private static partial Regex Attribute();
}

// Law 9 and the words of this house: names that say nothing, and words that are not used.
using System.Text.RegularExpressions;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed partial class NameLawTests
{
    private static readonly string[] s_emptyWords =
        ["Manager", "Helper", "Helpers", "Util", "Utils", "Utility", "Utilities", "Common", "Base"];

    /// <summary>The specifications' own words, which may contain one of the above.</summary>
    private static readonly string[] s_specWords = ["VringBase", "LogBase"];

    /// <summary>Written in two parts, so that this file does not break the law that it checks.</summary>
    private static readonly string[] s_bannedWords =
        ["mas" + "ter", "sla" + "ve", "TO" + "DO", "FIX" + "ME", "HA" + "CK"];

    [Theory]
    [InlineData("DeviceManager", true)]
    [InlineData("BufferUtils", true)]
    [InlineData("BaseDevice", true)]
    [InlineData("Database", false)]
    [InlineData("SetVringBase", false)]
    [InlineData("GetVringBaseTests", false)]
    [InlineData("VringBaseHelper", true)]
    public void Empty_words_are_seen(string name, bool isEmpty) => Assert.Equal(isEmpty, HasEmptyWord(name));

    [Fact]
    public void No_file_has_an_empty_name() => LawAssert.Kept(
        "No Manager, Helper, Util, Common or Base in a file's name",
        Repository.Files
            .Where(file => file.Path.Split('/').Any(part => HasEmptyWord(Path.GetFileNameWithoutExtension(part))))
            .Where(file => file.IsSource)
            .Select(file => file.Path));

    [Fact]
    public void No_type_has_an_empty_name() => LawAssert.Kept(
        "No Manager, Helper, Util, Common or Base in a type's name",
        from file in Repository.Sources
        from Match match in TypeName().Matches(file.Masked.Code)
        where HasEmptyWord(match.Groups["name"].Value)
        select $"{file.Path}: {match.Groups["name"].Value}");

    [Fact]
    public void Banned_words_occur_nowhere() => LawAssert.Kept(
        $"None of {string.Join(", ", s_bannedWords)} anywhere (a specification's old name in capitals may be cited)",
        from file in Repository.Files
        from line in file.Lines.Select((text, index) => (text, index))
        let text = OldSpecName().Replace(line.text, string.Empty)
        from word in s_bannedWords
        where HasWord(text, word)
        select $"{file.Path}({line.index + 1}): {word}");

    /// <summary>Words in capitals as they stand; others in any case, as a word or as a part of a name.</summary>
    private static bool HasWord(string text, string word) =>
        char.IsUpper(word[0])
            ? Regex.IsMatch(text, $@"\b{word}\b")
            : Regex.IsMatch(text, $@"\b{word}(s|d)?\b|{Capitalized(word)}(?![a-z])|{word.ToUpperInvariant()}");

    private static string Capitalized(string word) => char.ToUpperInvariant(word[0]) + word[1..];

    private static bool HasEmptyWord(string name)
    {
        foreach (string spec in s_specWords)
        {
            name = name.Replace(spec, "_", StringComparison.Ordinal);
        }

        return Word().Matches(name).Any(match => s_emptyWords.Contains(match.Value));
    }

    [GeneratedRegex(@"(?<![:,]\s*)\b(class|struct|interface|enum|record|delegate\s+[\w<>\[\]?]+)\s+(?<name>\w+)")]
    private static partial Regex TypeName();

    [GeneratedRegex("[A-Z][a-z0-9]*")]
    private static partial Regex Word();

    [GeneratedRegex("[A-Z_]*SLAVE_[A-Z_*]*")]
    private static partial Regex OldSpecName();
}

// Citations of specifications in comments: virtio-v1.3, vhost-user, vfio-user or NVM Express Base and a section's title
// in quotes. Each title that is cited stands in SectionTitles.txt, put there after a look into the specification.
using System.Text.RegularExpressions;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed partial class CitationLawTests
{
    private const string TitlesPath = "tests/Outboard.Tests/Tidy/SectionTitles.txt";

    [Fact]
    public void Every_cited_section_exists()
    {
        HashSet<string> known = [.. Titles()];
        LawAssert.Kept(
            $"A cited section stands in {TitlesPath} (add it after checking its title in the specification)",
            from file in Repository.Sources
            from citation in Citations(file)
            where !known.Contains(citation)
            select $"{file.Path}: {citation}");
    }

    [Fact]
    public void Every_known_section_is_cited()
    {
        HashSet<string> cited = [.. Repository.Sources.SelectMany(Citations)];
        LawAssert.Kept($"{TitlesPath} has no title that nobody cites", Titles().Where(title => !cited.Contains(title)));
    }

    [Fact]
    public void Titles_are_sorted_and_unique() =>
        Assert.Equal(Titles().Distinct().Order(StringComparer.Ordinal), Titles());

    [Fact]
    public void Citations_are_found_across_lines_and_in_lists()
    {
        const string text = "// see virtio-v1.3 \"2.7 Split\n// Virtqueues\" and \"5 Device Types\".\nint x;";
        RepositoryFile file = new("a.cs", text);
        Assert.Equal(["virtio-v1.3 \"2.7 Split Virtqueues\"", "virtio-v1.3 \"5 Device Types\""], Citations(file));
    }

    private static IEnumerable<string> Titles() =>
        Repository.Files.Single(file => file.Path == TitlesPath).Lines
            .Where(line => line.Length > 0 && !line.StartsWith('#'));

    private static IEnumerable<string> Citations(RepositoryFile file)
    {
        string comments = NextCommentLine().Replace(file.Masked.Comments, " ");
        foreach (Match match in Citation().Matches(comments))
        {
            foreach (Capture title in match.Groups["title"].Captures)
            {
                yield return $"{match.Groups["spec"].Value} \"{title.Value}\"";
            }
        }
    }

    [GeneratedRegex(
        """(?<spec>virtio-v1\.3|v(host|fio)-user|NVM Express Base) "(?<title>[^"]+)"(( and|,) "(?<title>[^"]+)")*""")]
    private static partial Regex Citation();

    [GeneratedRegex(@"\s*\n\s*///?\s*")]
    private static partial Regex NextCommentLine();
}

// The samples show how little a device needs: their size is part of the promise.
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class SampleLawTests
{
    private static readonly Dictionary<string, int> s_maxLines = new()
    {
        ["samples/HelloRng.cs"] = 30,
        ["samples/HelloFrontend.cs"] = 30,
        ["samples/HelloPci.cs"] = 45,
        ["samples/HelloDma.cs"] = 60,
    };

    [Fact]
    public void Samples_are_short() => LawAssert.Kept(
        "A sample is short: its lines of code are counted, without comments and blank lines",
        from file in Repository.Sources
        where file.IsUnder("samples")
        let lines = CountCode(file)
        where lines > s_maxLines.GetValueOrDefault(file.Path, 30)
        select $"{file.Path}: {lines} lines, at most {s_maxLines.GetValueOrDefault(file.Path, 30)} are allowed");

    [Theory]
    [InlineData("samples/HelloRng.cs")]
    [InlineData("samples/HelloFrontend.cs")]
    [InlineData("samples/HelloPci.cs")]
    [InlineData("samples/HelloDma.cs")]
    public void The_samples_of_the_first_page_exist(string path) =>
        Assert.Contains(Repository.Sources, file => file.Path == path);

    private static int CountCode(RepositoryFile file)
    {
        string[] comments = file.Masked.Comments.Split('\n');
        return file.Lines.Index().Count(line =>
            !string.IsNullOrWhiteSpace(line.Item) && line.Item.Trim() != comments[line.Index].Trim());
    }
}

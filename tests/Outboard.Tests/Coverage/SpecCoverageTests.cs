using Xunit;

namespace Outboard.Tests.Coverage;

/// <summary>The coverage page says what the tables, the code and the tests say.</summary>
public sealed class SpecCoverageTests
{
    private const string WriteVariable = "OUTBOARD_WRITE_DOCS";

    [Fact]
    public void Every_place_that_the_page_names_exists()
    {
        SpecCoverage coverage = new(FindRoot());
        coverage.Render();
        Assert.Empty(coverage.Problems);
    }

    [Fact]
    public void The_page_is_up_to_date()
    {
        string root = FindRoot();
        string page = new SpecCoverage(root).Render();
        string path = Path.Combine(root, SpecCoverage.PagePath);
        if (Environment.GetEnvironmentVariable(WriteVariable) == "1")
        {
            File.WriteAllText(path, page);
        }

        Assert.True(
            File.Exists(path) && File.ReadAllText(path) == page,
            $"{SpecCoverage.PagePath} is out of date: run this test with {WriteVariable}=1");
    }

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Outboard.slnx")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("no folder with Outboard.slnx above the tests");
    }
}

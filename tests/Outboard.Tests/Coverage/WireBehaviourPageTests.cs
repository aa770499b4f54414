// docs/VFIO-USER-BEHAVIOURS.md: every behaviour has a row, and every test that is named exists.
using System.Reflection;
using System.Text.RegularExpressions;
using Outboard.Tests.Tidy;
using Xunit;

namespace Outboard.Tests.Coverage;

public sealed partial class WireBehaviourPageTests
{
    private const int Behaviours = 182;

    private static readonly string[] s_rows =
        [.. File.ReadAllLines(Path.Combine(Repository.Root, "docs", "VFIO-USER-BEHAVIOURS.md"))
            .Where(line => line.StartsWith("| ", StringComparison.Ordinal))];

    [Fact]
    public void Every_behaviour_has_one_row()
    {
        List<int> numbers = [];
        foreach (string row in s_rows)
        {
            string cell = row.Split('|')[1].Trim();
            if (!NumberPattern.IsMatch(cell))
            {
                continue;
            }

            foreach (string part in cell.Split(", "))
            {
                int[] ends = [.. part.Split('-').Select(int.Parse)];
                numbers.AddRange(Enumerable.Range(ends[0], ends[^1] - ends[0] + 1));
            }
        }

        Assert.Equal(Enumerable.Range(1, Behaviours), numbers.Order());
    }

    [Fact]
    public void Every_test_that_is_named_exists()
    {
        HashSet<string> known =
        [
            .. from type in typeof(WireBehaviourPageTests).Assembly.GetTypes()
            from method in type.GetMethods(BindingFlags.Instance | BindingFlags.Public)
            where method.GetCustomAttributes().Any(attribute => attribute is FactAttribute)
            select $"{type.Name}.{method.Name}",
        ];
        string[] named = [.. s_rows.SelectMany(row => TestPattern.Matches(row)).Select(match => match.Value)];
        Assert.NotEmpty(named);
        Assert.All(named, name => Assert.Contains(name, known));
    }

    /// <summary>A test with a machine stands as "class: method", since it is in another assembly.</summary>
    [Fact]
    public void Every_test_with_a_machine_that_is_named_exists()
    {
        string folder = Path.Combine(Repository.Root, "tests", "Outboard.InteropTests", "VfioUser");
        Match[] named = [.. s_rows.SelectMany(row => GuestTestPattern.Matches(row))];
        Assert.NotEmpty(named);
        Assert.All(named, match => Assert.Contains(
            $"Task {match.Groups[2]}(", File.ReadAllText(Path.Combine(folder, $"{match.Groups[1]}.cs"))));
    }

    [GeneratedRegex(@"^\d[\d, -]*$")]
    private static partial Regex NumberPattern { get; }

    [GeneratedRegex(@"\b\w+Tests\.\w+")]
    private static partial Regex TestPattern { get; }

    [GeneratedRegex(@"\b(\w+Tests): (\w+)")]
    private static partial Regex GuestTestPattern { get; }
}

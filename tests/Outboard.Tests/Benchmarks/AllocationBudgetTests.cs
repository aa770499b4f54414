// What one operation may allocate: tests/Outboard.Benchmarks/budget.json, checked on the bodies measured there.
using System.Text.Json;
using Outboard.Benchmarks.Bodies;
using Xunit;

namespace Outboard.Tests.Benchmarks;

public sealed class AllocationBudgetTests
{
    private const int WarmUpRuns = 200;
    private const int Runs = 1000;

    public static TheoryData<string> Names => [.. BenchmarkBody.All.Keys];

    [Fact]
    public void Every_body_has_a_budget() =>
        Assert.Equal(BenchmarkBody.All.Keys.Order(), ReadBudget().Keys.Order());

    [Theory]
    [MemberData(nameof(Names))]
    public void A_body_stays_within_its_budget(string name)
    {
        using BenchmarkBody body = BenchmarkBody.All[name]();
        for (int i = 0; i < WarmUpRuns; i++)
        {
            body.Run();
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Runs; i++)
        {
            body.Run();
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        double each = (double)allocated / (Runs * BenchmarkBody.Operations);
        double allowed = ReadBudget()[name];
        Assert.True(each <= allowed, $"{name}: {each} bytes for each operation, {allowed} are allowed");
    }

    private static Dictionary<string, double> ReadBudget()
    {
        string path = Path.Combine(AppContext.BaseDirectory, "budget.json");
        return JsonSerializer.Deserialize<Dictionary<string, double>>(File.ReadAllText(path))!;
    }
}

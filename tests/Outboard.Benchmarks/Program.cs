// Micro-benchmarks of the data path's parts, for studying them:
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- --filter '*' --job short
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- scale
//   dotnet run -c Release --project tests/Outboard.Benchmarks -- regions SOCKET [SOCKET ...]
// Not part of the tests; what the parts may allocate is: see budget.json.
using System.Globalization;
using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using Outboard.Benchmarks;
using Outboard.Benchmarks.Bodies;

switch (args)
{
    case [Scale.Name, .. string[] counts]:
        await Scale.RunAsync(counts);
        return;
    case [Scale.ChildName, string folder, string count]:
        await Scale.ServeAsync(folder, int.Parse(count, CultureInfo.InvariantCulture));
        return;
    case [ThroughDevice.Name, string socket, .. string[] image]:
        await ThroughDevice.ServeAsync(socket, image.FirstOrDefault(string.Empty));
        return;
    case [Regions.Name, _, ..]:
        await Regions.RunAsync(args[1..]);
        return;
    case [Regions.ChildName, string path]:
        Regions.Echo(path);
        return;
}

SummaryStyle wide = SummaryStyle.Default.WithMaxParameterColumnWidth(60);
BenchmarkSwitcher.FromAssembly(typeof(DataPath).Assembly).Run(args, DefaultConfig.Instance.WithSummaryStyle(wide));

namespace Outboard.Benchmarks
{
    /// <summary>One measured operation of each body.</summary>
    [MemoryDiagnoser]
    public class DataPath
    {
        private BenchmarkBody? _body;

        /// <summary>The names of all bodies.</summary>
        public static IEnumerable<string> Names => BenchmarkBody.All.Keys;

        /// <summary>The body that is measured.</summary>
        [ParamsSource(nameof(Names))]
        public string Body { get; set; } = string.Empty;

        /// <summary>Makes the body.</summary>
        [GlobalSetup]
        public void Setup() => _body = BenchmarkBody.All[Body]();

        /// <summary>Frees the body.</summary>
        [GlobalCleanup]
        public void Cleanup() => _body?.Dispose();

        /// <summary>The measured operations.</summary>
        [Benchmark(OperationsPerInvoke = BenchmarkBody.Operations)]
        public void Run() => _body!.Run();
    }
}

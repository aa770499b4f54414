// Runs one body of measurement a number of times, for eng/instructions.sh to count its instructions. Without arguments
// it lists the bodies, one a line.
using System.Globalization;
using Outboard.Benchmarks.Bodies;

if (args.Length == 0)
{
    foreach (string name in BenchmarkBody.All.Keys)
    {
        Console.WriteLine($"{BenchmarkBody.Operations}\t{name}");
    }

    return 0;
}

if (args.Length != 2 || !BenchmarkBody.All.TryGetValue(args[0], out Func<BenchmarkBody>? make)
    || !int.TryParse(args[1], NumberStyles.None, CultureInfo.InvariantCulture, out int runs))
{
    Console.Error.WriteLine("usage: Outboard.Instructions [BODY RUNS]; without arguments it lists the bodies");
    return 2;
}

using BenchmarkBody body = make();
for (int run = 0; run < runs; run++)
{
    body.Run();
}

return 0;

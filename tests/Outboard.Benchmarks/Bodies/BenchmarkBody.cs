// What is measured: for its time by this project, for what it allocates by a test (tests/Outboard.Tests compiles this
// folder, too).
namespace Outboard.Benchmarks.Bodies;

/// <summary>A body of measurement.</summary>
public abstract class BenchmarkBody : IDisposable
{
    /// <summary>Operations of one run.</summary>
    public const int Operations = 256;

    /// <summary>All bodies by name, as budget.json names them.</summary>
    public static IReadOnlyDictionary<string, Func<BenchmarkBody>> All { get; } =
        new Dictionary<string, Func<BenchmarkBody>>
        {
            ["virtqueue take, complete, publish: 1 descriptor"] = () => new VirtqueueBody(1, isIndirect: false),
            ["virtqueue take, complete, publish: 3 descriptors"] = () => new VirtqueueBody(3, isIndirect: false),
            ["virtqueue take, complete, publish: 3 indirect"] = () => new VirtqueueBody(3, isIndirect: true),
            ["driver queue add, publish, collect: 3 descriptors"] = () => new DriverQueueBody(isIndirect: false),
            ["driver queue add, publish, collect: 3 indirect"] = () => new DriverQueueBody(isIndirect: true),
            ["both sides of a virtqueue: 3 descriptors, split"] = () => new BothSidesBody(isPacked: false),
            ["both sides of a virtqueue: 3 descriptors, packed"] = () => new BothSidesBody(isPacked: true),
            ["both sides of a virtqueue: counted once, journal"] = () => new CounterBody(),
            ["block driver read, submit, collect"] = () => new BlockDriverBody(),
            ["guest memory translate: 1 region"] = () => new TranslationBody(regions: 1),
            ["guest memory translate: 8 regions, random"] = () => new TranslationBody(regions: 8),
            ["guest memory translate: 509 regions, random"] = () => new TranslationBody(regions: 509),
            ["message framer: SET_VRING_ADDR"] = () => new FramerBody(),
        };

    /// <summary>Runs <see cref="Operations"/> operations.</summary>
    public abstract void Run();

    /// <inheritdoc/>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

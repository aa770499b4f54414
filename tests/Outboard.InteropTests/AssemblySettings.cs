// AssemblySettings.cs - the tests run one after another: each test machine keeps the processors busy by itself.
[assembly: Xunit.CollectionBehavior(DisableTestParallelization = true)]

// How a broken law is told: every place at once, one on a line.
using Xunit;

namespace Outboard.Tests.Tidy;

internal static class LawAssert
{
    internal static void Kept(string law, IEnumerable<string> violations)
    {
        string[] all = [.. violations];
        if (all.Length > 0)
        {
            Assert.Fail($"{law}\n  " + string.Join("\n  ", all));
        }
    }
}

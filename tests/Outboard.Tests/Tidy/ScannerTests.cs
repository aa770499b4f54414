// The scanners that the tidy tests rely on.
using System.Text.RegularExpressions;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed partial class ScannerTests
{
    private const string Q3 = "\"\"\"";

    private const string TypesOfAllKinds = """
        using System;
        using Alias = System.Int32;
        namespace A;

        // class NotAClass {
        [Flags]
        public enum E
        {
            One = 1,
            Two,
        }

        public sealed class C<T>(int x) : D(x)
            where T : class
        {
            private readonly int[] _data =
            [
                1,
                2,
            ];

            private static ReadOnlySpan<byte> Table =>
            [
                1,
            ];

            public int P { get; init; } = new[]
            {
                1,
            }[0];

            public int Q
            {
                get => 1;
                set { }
            }

            public static bool operator ==(C<T> a, C<T> b) => true;

            [Attribute("{")]
            public void M(int a = 1)
            {
                if (a == 1)
                {
                    Run(() => { });
                }
            }

            public int N(int a) => a switch
            {
                1 => 2,
                _ => '}',
            };

            private record struct Inner(int A)
            {
                public int Twice() => 2 * A;
            }
        }
        """;

    [Theory]
    [InlineData("a = \"x{y\"; b", "a = ; b")]
    [InlineData("a = \"x\\\"{\"; b", "a = ; b")]
    [InlineData("a = @\"x\"\"\\\"; b", "a = ; b")]
    [InlineData("a = '\"'; b = '\\''; c = '{'; d", "a = ; b = ; c = ; d")]
    [InlineData("a // b { \" '\nc", "a \nc")]
    [InlineData("a /* b\n { */ c", "a \n c")]
    [InlineData("#pragma warning disable X { \"\na", " \na")]
    [InlineData("a = $\"{(b ? \"}\" : '}')} {{ {c}\"; d", "a = ; d")]
    [InlineData("a = $@\"\"\"{b}\"\"\"; d", "a = ; d")]
    [InlineData("a = $\"{b[\"{\"]:x4}\"; d", "a = ; d")]
    [InlineData("a = $\"{{{b}}}\"; d", "a = ; d")]
    [InlineData("a = $\"{{{{\"; d", "a = ; d")]
    [InlineData("a = \"http://x\"; d", "a = ; d")]
    [InlineData("a = " + Q3 + " \" { " + Q3 + "; b", "a = ; b")]
    [InlineData("a = $" + Q3 + "{a} \"{b}\" " + Q3 + "; b", "a = ; b")]
    [InlineData("a = $$" + Q3 + "{ {{a + \"}}\"}} " + Q3 + "; b", "a = ; b")]
    [InlineData("a = \"" + Q3 + " " + Q3 + " \"" + Q3 + "; b", "a = ; b")]
    public void Literals_and_comments_are_no_code(string text, string code)
    {
        string masked = MaskedSource.Of(text).Code;
        Assert.Equal(text.Length, masked.Length);
        Assert.Equal(code, Blanks().Replace(masked, " "));
    }

    [Fact]
    public void Comments_keep_their_place()
    {
        const string text = "a(\"// no\"); // yes\n/* b */ c";
        string comments = MaskedSource.Of(text).Comments;
        Assert.Equal(text.Length, comments.Length);
        Assert.Equal(" // yes\n/* b */ ", Blanks().Replace(comments, " "));
    }

    [Fact]
    public void Functions_are_measured_from_their_first_to_their_last_line()
    {
        IReadOnlyList<FunctionSpan> functions = FunctionScanner.Find(MaskedSource.Of(TypesOfAllKinds));
        Assert.Equal(
            [
                new("public int Q", 32, 5),
                new("public static bool operator ==(C<T> a, C<T> b)", 38, 1),
                new("[Attribute( )] public void M(int a = 1)", 40, 8),
                new("public int N(int a)", 49, 5),
                new("public int Twice()", 57, 1),
            ],
            functions);
    }

    [Fact]
    public void Statements_outside_of_types_are_one_function()
    {
        const string text = """
            #:project ../x.csproj
            // comment
            using System;

            using Stream s = Open();
            foreach (int i in list)
            {
                Write(i);
            }

            internal sealed class After
            {
                internal void F()
                {
                }
            }
            """;
        IReadOnlyList<FunctionSpan> functions = FunctionScanner.Find(MaskedSource.Of(text));
        Assert.Equal([new("internal void F()", 13, 3), new("the program", 5, 5)], functions);
    }

    [GeneratedRegex(" +")]
    private static partial Regex Blanks();
}

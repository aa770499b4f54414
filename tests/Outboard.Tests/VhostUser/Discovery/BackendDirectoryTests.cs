// The rules by which installed back-ends are found, in explicit directories.
using Outboard.Tests.Cli;
using Outboard.VhostUser.Discovery;
using Xunit;

namespace Outboard.Tests.VhostUser.Discovery;

public sealed class BackendDirectoryTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Directories_go_from_general_to_specific()
    {
        string[] system = ["/usr/share/qemu/vhost-user", "/etc/qemu/vhost-user"];
        Assert.Equal([.. system, "/x/qemu/vhost-user"], BackendDirectory.SearchPath("/x", "/h/me"));
        string[] byDefault = [.. system, "/h/me/.config/qemu/vhost-user"];
        Assert.Equal(byDefault, BackendDirectory.SearchPath(null, "/h/me"));
        Assert.Equal(byDefault, BackendDirectory.SearchPath("", "/h/me"));
        Assert.Equal(byDefault, BackendDirectory.SearchPath("relative", "/h/me"));
        Assert.Equal(system, BackendDirectory.SearchPath(null, null));
    }

    [Fact]
    public void Absent_directories_are_empty()
    {
        BackendDirectory found = BackendDirectory.Read([_folder["none"], _folder["neither"]]);
        Assert.Empty(found.Backends);
        Assert.Empty(found.Rejected);
        Assert.Null(found.Find("block"));
    }

    [Fact]
    public void Files_are_sorted_by_name_across_directories()
    {
        Add("usr", "90-z.json", "z");
        Add("etc", "10-a.json", "a");
        Add("usr", "50-m.json", "m");
        Assert.Equal(["a", "m", "z"], Descriptions());
    }

    [Fact]
    public void A_more_specific_file_replaces_the_general_one_of_its_name()
    {
        Add("usr", "50-disk.json", "general");
        Add("etc", "50-disk.json", "specific");
        InstalledBackend found = Assert.Single(Read().Backends);
        Assert.Equal("specific", found.Description.Description);
        Assert.Equal(_folder["etc/50-disk.json"], found.File);
    }

    [Fact]
    public void A_file_of_zero_length_hides()
    {
        Add("usr", "50-disk.json", "hidden");
        Add("usr", "60-disk.json", "shown");
        _folder.Write("etc/50-disk.json", "");
        Assert.Equal(["shown"], Descriptions());
        Assert.Empty(Read().Rejected);

        File.Delete(_folder["etc/50-disk.json"]);
        File.CreateSymbolicLink(_folder["etc/50-disk.json"], "/dev/null");
        Assert.Equal(["shown"], Descriptions());
    }

    [Fact]
    public void The_first_of_a_type_is_taken()
    {
        Add("usr", "50-b.json", "b", "gpu");
        Add("usr", "40-a.json", "a", "block");
        Add("etc", "60-c.json", "c", "gpu");
        Assert.Equal("b", Read().Find("gpu")!.Description.Description);
        Assert.Null(Read().Find("input"));
    }

    [Theory]
    [InlineData("{", "")]
    [InlineData("null", "null")]
    [InlineData("[]", "")]
    [InlineData("""{"type":"block","binary":"/b"}""", "description")]
    [InlineData("""{"description":"d","binary":"/b"}""", "type")]
    [InlineData("""{"description":"d","type":"block"}""", "binary")]
    [InlineData("""{"description":"d","type":"block","binary":"b"}""", "absolute")]
    [InlineData("""{"description":"d","type":7,"binary":"/b"}""", "")]
    [InlineData("""{"description":"d","type":"block","binary":"/b","tags":"x"}""", "")]
    public void A_malformed_file_is_reported_and_does_not_end_the_search(string text, string word)
    {
        string file = _folder.Write("usr/10-broken.json", text);
        Add("usr", "50-fine.json", "fine");
        BackendDirectory found = Read();
        Assert.Equal("fine", Assert.Single(found.Backends).Description.Description);
        RejectedDescription rejected = Assert.Single(found.Rejected);
        Assert.Equal(file, rejected.File);
        Assert.Contains(word, rejected.Reason, StringComparison.Ordinal);
        Assert.NotEmpty(rejected.Reason);
    }

    [Fact]
    public void An_endless_file_and_a_dangling_link_are_reported()
    {
        Directory.CreateDirectory(_folder["usr"]);
        File.CreateSymbolicLink(_folder["usr/10-endless.json"], "/dev/zero");
        File.CreateSymbolicLink(_folder["usr/20-dangling.json"], _folder["nowhere"]);
        Assert.Equal(
            [_folder["usr/10-endless.json"], _folder["usr/20-dangling.json"]], Read().Rejected.Select(r => r.File));
    }

    [Fact]
    public void Other_files_are_not_looked_at()
    {
        _folder.Write("usr/README", "no JSON");
        _folder.Write("usr/50-disk.json.bak", "no JSON");
        _folder.Write("usr/.50-disk.json", "no JSON");
        Directory.CreateDirectory(_folder["usr/60-folder.json"]);
        Assert.Empty(Read().Backends);
        Assert.Empty(Read().Rejected);
    }

    [Fact]
    public void Unknown_members_are_tolerated_and_tags_are_kept()
    {
        _folder.Write("usr/50-fs.json", """
            {"description":"d","type":"fs","binary":"/b","tags":["x","y"],"features":["migrate"],"future":{"a":[1]}}
            """);
        BackendDescription found = Assert.Single(Read().Backends).Description;
        Assert.Equal(["x", "y"], found.Tags!);
    }

    private void Add(string directory, string name, string description, string type = "block") => _folder.Write(
        $"{directory}/{name}", new BackendDescription(description, type, "/usr/bin/true").ToJson());

    private BackendDirectory Read() => BackendDirectory.Read([_folder["usr"], _folder["etc"]]);

    private string[] Descriptions() => [.. Read().Backends.Select(backend => backend.Description.Description)];
}

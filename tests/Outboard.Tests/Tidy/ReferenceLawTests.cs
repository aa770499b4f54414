// Law 2 and section "Projects" of docs/ARCHITECTURE.md: who may know whom.
using System.Reflection;
using System.Xml.Linq;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class ReferenceLawTests
{
    /// <summary>The products that each product may reference.</summary>
    private static readonly Dictionary<string, string[]> s_allowed = new()
    {
        ["Outboard.Linux"] = [],
        ["Outboard.Memory"] = ["Outboard.Linux"],
        ["Outboard.Pci"] = ["Outboard.Memory"],
        ["Outboard.Virtio"] = ["Outboard.Pci"],
        ["Outboard.VhostUser"] = ["Outboard.Virtio"],
        ["Outboard.VirtioVhostUser"] = ["Outboard.VhostUser"],
        ["Outboard.VfioUser"] = ["Outboard.Pci"],
        ["Outboard.Devices"] = ["Outboard.Pci", "Outboard.Virtio"],
    };

    private static readonly string[] s_transports =
        ["Outboard.VhostUser", "Outboard.VirtioVhostUser", "Outboard.VfioUser"];

    [Fact]
    public void Products_reference_what_the_design_says_and_nothing_else() => LawAssert.Kept(
        "Linux <- Memory <- Pci <- Virtio <- VhostUser <- VirtioVhostUser; Pci <- VfioUser; {Pci, Virtio} <- Devices",
        from file in Repository.Files
        where file.IsUnder("src") && file.Path.EndsWith(".csproj", StringComparison.Ordinal)
        let project = Path.GetFileNameWithoutExtension(file.Path)
        from reference in References(file)
        where !s_allowed.TryGetValue(project, out string[]? allowed) || !allowed.Contains(reference)
        select $"{project} -> {reference}");

    [Fact]
    public void Every_product_is_known_here() => Assert.Equal(
        s_allowed.Keys.Order(StringComparer.Ordinal),
        Repository.Files
            .Where(file => file.IsUnder("src") && file.Path.EndsWith(".csproj", StringComparison.Ordinal))
            .Select(file => Path.GetFileNameWithoutExtension(file.Path))
            .Order(StringComparer.Ordinal));

    [Fact]
    public void Only_cli_tests_and_samples_see_a_device_and_a_transport() => LawAssert.Kept(
        "No product sees both a device and a transport",
        from file in Repository.Sources
        where file.IsUnder("src")
        let code = file.Masked.Code
        let seesDevice = file.IsUnder("src/Outboard.Devices")
            || code.Contains("Outboard.Devices", StringComparison.Ordinal)
        let seesTransport = s_transports.Any(transport =>
            file.IsUnder("src/" + transport) || code.Contains(transport + ".", StringComparison.Ordinal))
        where seesDevice && seesTransport
        select file.Path);

    [Fact]
    public void Devices_know_no_transport()
    {
        IEnumerable<string?> referenced =
            Assembly.Load("Outboard.Devices").GetReferencedAssemblies().Select(name => name.Name);
        Assert.DoesNotContain(referenced, name => s_transports.Contains(name));
    }

    [Fact]
    public void Virtio_and_pci_know_no_device_and_no_transport()
    {
        string[] above = [.. s_transports, "Outboard.Devices"];
        foreach (string product in new[] { "Outboard.Virtio", "Outboard.Pci" })
        {
            IEnumerable<string?> referenced =
                Assembly.Load(product).GetReferencedAssemblies().Select(name => name.Name);
            Assert.DoesNotContain(referenced, name => above.Contains(name));
        }
    }

    private static IEnumerable<string> References(RepositoryFile project) =>
        XDocument.Parse(project.Text).Descendants("ProjectReference")
            .Select(element => element.Attribute("Include")!.Value.Replace('\\', '/'))
            .Select(path => Path.GetFileNameWithoutExtension(path)!);
}

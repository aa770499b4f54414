// These tests count the descriptors and mappings of their process, so nothing else may run beside them.
using Xunit;

namespace Outboard.Tests.VhostUser;

[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class VhostUserCollection
{
    public const string Name = "vhost-user";
}

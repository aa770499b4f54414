// Translations: kept sorted and apart from each other, against a model; bounded; read while they change.
using Outboard.Memory;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class IommuTableTests
{
    private const int Space = 64;

    private readonly IommuTable _table = new();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Behaves_as_a_map_of_addresses(int seed)
    {
        Random random = new(seed);
        Dictionary<ulong, (ulong User, MemoryAccess Access)> model = [];
        for (int step = 0; step < 2000; step++)
        {
            ulong start = (ulong)random.Next(Space);
            ulong last = start + (ulong)random.Next(Space - (int)start);
            if (random.Next(3) > 0)
            {
                ulong user = (ulong)random.Next(1 << 20);
                MemoryAccess access = (MemoryAccess)random.Next(1, 4);
                _table.Add(new IommuEntry(start, last, user, access));
                for (ulong iova = start; iova <= last; iova++)
                {
                    model[iova] = (user + iova - start, access);
                }
            }
            else
            {
                _table.Remove(start, last);
                for (ulong iova = start; iova <= last; iova++)
                {
                    model.Remove(iova);
                }
            }

            for (ulong iova = 0; iova < Space; iova++)
            {
                bool found = _table.TryFind(iova, out IommuEntry entry);
                Assert.Equal(model.TryGetValue(iova, out (ulong User, MemoryAccess Access) expected), found);
                Assert.True(!found || (entry.UserAddress + iova - entry.Start, entry.Access) == expected);
            }
        }
    }

    [Fact]
    public void The_ends_of_the_address_space_are_addresses_like_others()
    {
        _table.Add(new IommuEntry(0, ulong.MaxValue, 5, MemoryAccess.Read));
        Assert.True(_table.TryFind(ulong.MaxValue, out _));
        _table.Remove(0, 0);
        _table.Remove(ulong.MaxValue, ulong.MaxValue);
        Assert.False(_table.TryFind(0, out _));
        Assert.False(_table.TryFind(ulong.MaxValue, out _));
        Assert.True(_table.TryFind(1, out IommuEntry entry));
        Assert.Equal(6UL, entry.UserAddress);
        _table.Clear();
        Assert.Equal(0, _table.Count);
    }

    [Fact]
    public void More_than_fit_push_out_others_but_never_the_newest()
    {
        for (ulong i = 0; i < 3 * (ulong)IommuTable.MaxEntries; i++)
        {
            _table.Add(new IommuEntry(i * 2, i * 2, i, MemoryAccess.Read));
            Assert.True(_table.TryFind(i * 2, out _));
            Assert.True(_table.Count <= IommuTable.MaxEntries);
        }

        Assert.Equal(IommuTable.MaxEntries, _table.Count);
    }

    [Fact]
    public void Cutting_a_full_table_into_pieces_keeps_its_bound()
    {
        for (ulong i = 0; i < (ulong)IommuTable.MaxEntries; i++)
        {
            _table.Add(new IommuEntry(i * 16, (i * 16) + 8, i, MemoryAccess.Read));
        }

        for (ulong i = 0; i < 100; i++)
        {
            _table.Remove((i * 16) + 4, (i * 16) + 4);
            Assert.True(_table.Count <= IommuTable.MaxEntries);
        }
    }

    [Fact]
    public async Task A_reader_never_sees_half_an_entry()
    {
        using CancellationTokenSource end = new();
        Task reading = Task.Run(
            () =>
            {
                while (!end.IsCancellationRequested)
                {
                    for (ulong iova = 0; iova < 4096; iova += 37)
                    {
                        if (_table.TryFind(iova, out IommuEntry entry))
                        {
                            Assert.True(entry.Contains(iova));
                            Assert.Equal(entry.Start * 3, entry.UserAddress);
                        }
                    }
                }
            },
            TestContext.Current.CancellationToken);
        Random random = new(9);
        for (int i = 0; i < 50_000; i++)
        {
            // Ranges of fixed places, so that no entry is ever cut and each tells by itself whether it is whole.
            ulong start = (ulong)random.Next(256) * 16;
            if (random.Next(2) == 0)
            {
                _table.Add(new IommuEntry(start, start + 15, start * 3, MemoryAccess.ReadWrite));
            }
            else
            {
                _table.Remove(start, start + 15);
            }
        }

        await end.CancelAsync();
        await reading;
    }
}

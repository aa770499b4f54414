// Early calls: let through while they are cheap, held back while they are dear.
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class CallPacingTests
{
    [Fact]
    public void The_first_call_is_free() => Assert.True(default(CallPacing).PaysAt(1000));

    [Fact]
    public void Long_requests_wait_until_calls_take_a_bounded_share_of_the_time()
    {
        CallPacing pacing = Learnt(price: 8000, requestTicks: 1000, out long now);

        Assert.False(pacing.PaysAt(now + (7900 * CallPacing.TimesPrice)));
        Assert.True(pacing.PaysAt(now + (8000 * CallPacing.TimesPrice)));
    }

    [Fact]
    public void A_driver_that_is_awake_is_called_at_once()
    {
        CallPacing pacing = Learnt(price: 0, requestTicks: 10, out long now);

        Assert.True(pacing.PaysAt(now));
    }

    [Fact]
    public void Requests_of_which_a_burst_fits_into_a_wake_up_are_told_at_once()
    {
        CallPacing pacing = Learnt(price: 10 * CallPacing.Burst, requestTicks: 10, out long now);
        CallPacing longer = Learnt(price: 10 * CallPacing.Burst, requestTicks: 11, out long later);

        Assert.True(pacing.PaysAt(now));
        Assert.False(longer.PaysAt(later));
    }

    [Fact]
    public void The_price_is_learnt_again_when_it_changes()
    {
        CallPacing pacing = Learnt(price: 8000, requestTicks: 1000, out long now);
        Assert.False(pacing.PaysAt(now));
        for (int call = 0; call < 64; call++)
        {
            pacing.OnCall(now, now);
        }

        Assert.True(pacing.PaysAt(now + 10));
    }

    /// <summary>After many turns of 16 requests, each with one call; <paramref name="now"/> is when it ended.</summary>
    private static CallPacing Learnt(long price, long requestTicks, out long now)
    {
        CallPacing pacing = default;
        now = 1;
        for (int turn = 0; turn < 100; turn++)
        {
            pacing.OnTurn(now);
            now += 16 * requestTicks;
            pacing.OnCall(now, now + price);
            now += price;
            pacing.OnTurnEnd(now, served: 16);
        }

        return pacing;
    }
}

// Early calls: at once while requests are short, at half time while they are long, hardly ever among other busy queues.
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class CallPacingTests
{
    private const long Price = 8000;

    [Fact]
    public void At_first_requests_count_as_short() => Assert.True(default(CallPacing).IsShort);

    [Fact]
    public void Long_requests_wait_until_half_of_them_are_done()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 1000, out long now);

        Assert.False(pacing.IsShort);
        Assert.False(pacing.PaysAt(now + (Price * CallPacing.TimesPrice), isHalfDone: false));
        Assert.True(pacing.PaysAt(now + (Price * CallPacing.TimesPrice), isHalfDone: true));
    }

    [Fact]
    public void Calls_take_a_bounded_share_of_the_time()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 1000, out long now);

        Assert.False(pacing.PaysAt(now + ((Price - 100) * CallPacing.TimesPrice), isHalfDone: true));
    }

    [Fact]
    public void No_driver_waits_for_half_of_very_long_requests()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 1000, out long now);

        Assert.True(pacing.PaysAt(now + (Price * CallPacing.MostPrices), isHalfDone: false));
    }

    [Fact]
    public void A_driver_that_is_awake_is_called_whenever_half_is_done()
    {
        CallPacing pacing = Learnt(price: 0, requestTicks: 1000, out long now);

        Assert.True(pacing.PaysAt(now, isHalfDone: true));
    }

    [Fact]
    public void Requests_of_which_a_burst_fits_into_a_wake_up_are_told_at_once()
    {
        CallPacing pacing = Learnt(price: 1000 * CallPacing.Burst, requestTicks: 1000, out _);
        CallPacing longer = Learnt(price: 1000 * CallPacing.Burst, requestTicks: 1010, out _);

        Assert.True(pacing.IsShort);
        Assert.False(longer.IsShort);
    }

    [Fact]
    public void A_burst_stays_short_while_calls_are_cheap() =>
        Assert.True(Learnt(price: 0, requestTicks: 50, out _).IsShort);

    [Fact]
    public void Among_other_busy_queues_only_a_long_turn_is_interrupted()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 10, out long now);
        pacing.OnTurn(now + 1_000_000);

        Assert.False(pacing.PaysAmongOthersAt(now + 1_000_000));
        Assert.False(pacing.PaysAmongOthersAt(now + 1_000_000 + ((Price - 100) * CallPacing.MostPrices)));
        Assert.True(pacing.PaysAmongOthersAt(now + 1_000_000 + (Price * CallPacing.MostPrices)));
    }

    [Fact]
    public void The_price_is_learnt_again_when_it_changes()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 1000, out long now);
        Assert.False(pacing.PaysAt(now, isHalfDone: true));
        for (int call = 0; call < 64; call++)
        {
            pacing.OnCall(now, now);
        }

        Assert.True(pacing.PaysAt(now + 10, isHalfDone: true));
    }

    [Fact]
    public void Short_requests_are_measured_now_and_then_and_long_ones_always()
    {
        CallPacing pacing = Learnt(Price, requestTicks: 10, out long now);
        for (int turn = 1; turn < CallPacing.TurnsPerMeasure; turn++)
        {
            Assert.False(pacing.IsMeasureDue);
            pacing.OnTurnEnd();
        }

        Assert.True(pacing.IsMeasureDue);
        pacing.OnTurn(now);
        pacing.OnTurnEnd(now + 10_000_000, served: 1);
        Assert.False(pacing.IsShort);
        Assert.True(pacing.IsMeasureDue);
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

// The pin's level, its mask, and signals that nobody has seen yet: a client that asserts a guest's pin for nothing may
// have no way of releasing it.
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.Pci.Interrupts;
using Xunit;

namespace Outboard.Tests.Pci;

public sealed class PinTests : IDisposable
{
    private readonly PinFunction _function = new();
    private readonly Line _line = new();

    public PinTests() => Vectors.Bind(0, _line);

    private InterruptVectors Vectors => _function.Interrupts[InterruptKind.Intx];

    public void Dispose() => Vectors.Bind(0, null);

    [Fact]
    public void A_level_signals_once_until_it_is_unmasked()
    {
        _function.Interrupts.SetPin(true);
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
        Vectors.SetMasked(0, false);
        Assert.Equal(1u, _line.Event.Take());
    }

    [Fact]
    public void A_level_that_fell_and_rose_signals_after_the_unmask()
    {
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
        _function.Interrupts.SetPin(false);
        _function.Interrupts.SetPin(true);
        Assert.Equal(0u, _line.Event.Take());
        Vectors.SetMasked(0, false);
        Assert.Equal(1u, _line.Event.Take());
    }

    [Fact]
    public void An_unmask_of_a_level_that_fell_signals_nothing()
    {
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
        _function.Interrupts.SetPin(false);
        Vectors.SetMasked(0, false);
        Assert.Equal(0u, _line.Event.Take());
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
    }

    [Fact]
    public void A_signal_that_nobody_saw_is_taken_back_with_the_level_and_leaves_no_mask()
    {
        _function.Interrupts.SetPin(true);
        _function.Interrupts.SetPin(false);
        Assert.Equal(0u, _line.Event.Take());
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
        _function.Interrupts.SetPin(false);
        _function.Interrupts.SetPin(true);
        Assert.Equal(0u, _line.Event.Take());
    }

    /// <summary>The client's own trigger is not the level's.</summary>
    [Fact]
    public void What_was_triggered_is_not_taken_back()
    {
        Assert.Equal(TriggerOutcome.Signalled, Vectors.Trigger(0));
        _function.Interrupts.SetPin(true);
        _function.Interrupts.SetPin(false);
        Assert.Equal(1u, _line.Event.Take());
        Vectors.SetMasked(0, false);
        Vectors.SetMasked(0, true);
        Assert.Equal(TriggerOutcome.Held, Vectors.Trigger(0));
        _function.Interrupts.SetPin(true);
        Vectors.SetMasked(0, false);
        _function.Interrupts.SetPin(false);
        Assert.Equal(1u, _line.Event.Take());
    }

    [Fact]
    public void A_line_that_cannot_take_back_stays_masked()
    {
        _line.CanWithdraw = false;
        _function.Interrupts.SetPin(true);
        _function.Interrupts.SetPin(false);
        _function.Interrupts.SetPin(true);
        Assert.Equal(1u, _line.Event.Take());
    }

    /// <summary>The guest's handler is between two queues.</summary>
    [Fact]
    public void An_access_unmasks_and_a_level_that_falls_then_is_not_told_of()
    {
        for (int round = 0; round < 50; round++)
        {
            _function.Interrupts.SetPin(true);
            Assert.Equal(1u, _line.Event.Take());
            Vectors.UnmaskByAccess(0);
            _function.Interrupts.SetPin(false);
            _line.Event.Take();
            Vectors.UnmaskByAccess(0);
            Assert.Equal(0u, _line.Event.Take());
        }
    }

    [Fact]
    public void An_access_unmasks_and_a_level_that_stays_is_told_of_again()
    {
        _function.Interrupts.SetPin(true);
        for (int round = 0; round < 3; round++)
        {
            Assert.Equal(1u, _line.Event.Wait(20_000));
            Vectors.UnmaskByAccess(0);
            Vectors.UnmaskByAccess(0);
        }

        Assert.Equal(1u, _line.Event.Wait(20_000));
        Vectors.UnmaskByAccess(0);
        Vectors.SetMasked(0, true);
        Assert.Equal(0u, _line.Event.Wait(10));
        Vectors.SetMasked(0, false);
        Assert.Equal(1u, _line.Event.Take());
    }

    [Fact]
    public void An_unmask_that_waits_ends_with_the_binding()
    {
        _function.Interrupts.SetPin(true);
        Vectors.UnmaskByAccess(0);
        Line other = new();
        Vectors.Bind(0, other);
        Assert.Equal(1u, other.Event.Take());
        Assert.Equal(0u, other.Event.Wait(10));
    }

    [Fact]
    public void A_new_binding_hears_of_a_level_that_is_there()
    {
        _function.Interrupts.SetPin(true);
        Line other = new();
        Vectors.Bind(0, other);
        Assert.Equal(1u, other.Event.Take());
    }

    private sealed class PinFunction : PciFunction
    {
        public PinFunction()
            : base(new PciIdentity(1, 2)) => AddInterruptPin();
    }

    private sealed class Line : InterruptLine
    {
        public EventFd Event { get; } = new();

        public bool CanWithdraw { get; set; } = true;

        public override void Signal() => Event.Signal();

        public override bool TryWithdraw() => CanWithdraw && Event.Take() > 0;

        public override void Dispose() => Event.Dispose();
    }
}

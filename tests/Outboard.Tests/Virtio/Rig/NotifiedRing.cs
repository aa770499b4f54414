// A driver and a device on one ring, as stepped programs: each does what its real counterpart does between two looks at
// the other, and sleeps until it is notified. A kick and a call are flags, as eventfds are.
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Tests.Virtio.Rig;

/// <summary>What one of the two does wrong, so that the exploration shows that it would notice.</summary>
public enum Carelessness
{
    None,

    /// <summary>The device sleeps although something became available while it armed.</summary>
    DeviceDoesNotLookAgain,

    /// <summary>The driver waits although something was used while it armed.</summary>
    DriverDoesNotLookAgain,

    /// <summary>The device sleeps without asking for kicks.</summary>
    DeviceDoesNotArm,
}

internal sealed class NotifiedRing : IDisposable
{
    private readonly DriverBuffer _buffer;
    private readonly Carelessness _carelessness;
    private bool _kick;
    private bool _call;

    internal NotifiedRing(
        DriverMemory memory,
        int size,
        ulong features,
        int requests,
        int perPublish,
        int before,
        Carelessness carelessness)
    {
        _carelessness = carelessness;
        Driver = DriverQueue.Create(0, size, memory, features);
        _buffer = memory.Allocate(16);
        Device = Virtqueue.Create(VirtqueuePropertyTests.Setup(Driver, memory, features));
        for (int i = 0; i < before; i++)
        {
            PassOne();
        }

        DriverSide = new DriverProgram(this, requests, perPublish);
        DeviceSide = new DeviceProgram(this);
    }

    internal DriverQueue Driver { get; }

    internal Virtqueue Device { get; }

    internal DriverProgram DriverSide { get; }

    internal DeviceProgram DeviceSide { get; }

    public void Dispose() => Device.Dispose();

    /// <summary>A request that both sides finish at once, to bring the indices on.</summary>
    private void PassOne()
    {
        Driver.TryAdd([], [_buffer], 0);
        Driver.Publish();
        Driver.ShouldKick();
        Device.TryTake(out DescriptorChain chain);
        chain.Complete(0);
        Device.Publish();
        Device.ShouldCall();
        Driver.TryCollect(out _, out _);
    }

    /// <summary>Adds, publishes, kicks if asked; collects what is there; arms and sleeps when nothing is.</summary>
    internal sealed class DriverProgram(NotifiedRing ring, int requests, int perPublish) : ISteppedProgram
    {
        private enum State { Add, Kick, Collect, Arm, Asleep, Done }

        private State _state;
        private int _added;

        internal int Collected { get; private set; }

        public bool CanStep => _state switch
        {
            State.Done => false,
            State.Asleep => ring._call,
            _ => true,
        };

        public void Step() => _state = _state switch
        {
            State.Add => Add(),
            State.Kick => Kick(),
            State.Asleep => Wake(),
            State.Collect => Collect(),
            _ => Arm(),
        };

        private State Add()
        {
            for (int i = 0; i < perPublish && _added < requests; i++)
            {
                if (!ring.Driver.TryAdd([], [ring._buffer], (uint)_added))
                {
                    break;
                }

                _added++;
            }

            ring.Driver.Publish();
            return State.Kick;
        }

        private State Kick()
        {
            ring._kick |= ring.Driver.ShouldKick();
            return State.Collect;
        }

        private State Collect()
        {
            while (ring.Driver.TryCollect(out _, out _))
            {
                Collected++;
            }

            return Collected == requests ? State.Done
                : _added < requests && ring.Driver.FreeDescriptors > 0 ? State.Add
                : State.Arm;
        }

        private State Arm() =>
            ring.Driver.ArmCalls() && ring._carelessness != Carelessness.DriverDoesNotLookAgain
                ? Awake()
                : State.Asleep;

        private State Wake()
        {
            ring._call = false;
            return Awake();
        }

        private State Awake()
        {
            ring.Driver.SuppressCalls();
            return State.Collect;
        }
    }

    /// <summary>Takes and completes all, publishes, calls if asked; arms and sleeps when nothing is there.</summary>
    internal sealed class DeviceProgram(NotifiedRing ring) : ISteppedProgram
    {
        private enum State { Asleep, Serve, Call, Arm }

        private State _state = State.Arm;

        public bool CanStep => _state != State.Asleep || ring._kick;

        public void Step() => _state = _state switch
        {
            State.Asleep => Wake(),
            State.Serve => Serve(),
            State.Call => Call(),
            _ => Arm(),
        };

        private State Wake()
        {
            ring._kick = false;
            return Awake();
        }

        private State Awake()
        {
            ring.Device.SuppressKicks();
            return State.Serve;
        }

        private State Serve()
        {
            bool any = false;
            while (ring.Device.TryTake(out DescriptorChain chain))
            {
                chain.Complete(0);
                any = true;
            }

            if (!any)
            {
                return State.Arm;
            }

            ring.Device.Publish();
            return State.Call;
        }

        private State Call()
        {
            ring._call |= ring.Device.ShouldCall();
            return State.Serve;
        }

        private State Arm()
        {
            bool isThere = ring._carelessness != Carelessness.DeviceDoesNotArm && ring.Device.ArmKicks();
            return isThere && ring._carelessness != Carelessness.DeviceDoesNotLookAgain ? Awake() : State.Asleep;
        }
    }
}

// A migration whose stream has frames of {kind u32, length u32, bytes}:
//
//   1 offer   who this is. Comes in pre-copy, so that a destination refuses before any memory has been copied
//   2 state   everything, of a function that is stopped
//
// What they contain is the function's business. A stream that is cut, goes on beyond its end, or has other frames is
// refused; a destination that was given nothing goes on as it is.
using System.Buffers.Binary;
using Outboard.Linux;

namespace Outboard.Pci;

/// <summary>The steps of a migration by an offer and a state.</summary>
public abstract class FramedMigration : PciMigration
{
    private const int HeadBytes = 8;
    private const uint OfferKind = 1;
    private const uint StateKind = 2;

    private byte[] _leaving = [];
    private int _read;
    private byte[] _arrived = [];
    private bool _hasBegun;
    private bool _hasState;
    private bool _hasMoved;

    /// <inheritdoc/>
    public override bool HasPreCopy => true;

    /// <summary>Longest offer that is read.</summary>
    protected abstract int MaxOfferBytes { get; }

    /// <summary>Longest state that is read.</summary>
    protected abstract int MaxStateBytes { get; }

    /// <inheritdoc/>
    public override async ValueTask EnterAsync(MigrationState previous, MigrationState state)
    {
        switch (state)
        {
            case MigrationState.PreCopy:
                _leaving = Frame(OfferKind, MakeOffer());
                _read = 0;
                break;
            case MigrationState.StopCopy:
                await HaltAsync().ConfigureAwait(false);
                byte[] unread =
                    previous == MigrationState.PreCopy ? _leaving[_read..] : Frame(OfferKind, MakeOffer());
                _leaving = [.. unread, .. Frame(StateKind, Leave())];
                _read = 0;
                break;
            case MigrationState.Resuming:
                _arrived = [];
                _hasBegun = _hasState = false;
                break;
            case MigrationState.Stop when previous == MigrationState.Resuming:
                if (_hasBegun && (!_hasState || _arrived.Length > 0))
                {
                    throw new MigrationException(
                        Errno.InvalidArgument, $"the stream ends with {_arrived.Length} bytes of a frame");
                }

                break;
            case MigrationState.Stop:
                await HaltAsync().ConfigureAwait(false);
                break;
            case MigrationState.Running when previous == MigrationState.Stop:
                _leaving = [];
                await ContinueAsync(_hasMoved).ConfigureAwait(false);
                _hasMoved = false;
                break;
        }
    }

    /// <inheritdoc/>
    public override int ReadData(Span<byte> destination)
    {
        int count = Math.Min(destination.Length, _leaving.Length - _read);
        _leaving.AsSpan(_read, count).CopyTo(destination);
        _read += count;
        return count;
    }

    /// <inheritdoc/>
    public override void WriteData(ReadOnlySpan<byte> source)
    {
        if (source.IsEmpty)
        {
            return;
        }

        _hasBegun = true;
        if (_hasState || _arrived.Length + source.Length > MaxStateBytes + MaxOfferBytes + (2 * HeadBytes))
        {
            throw new MigrationException(Errno.InvalidArgument, "the stream goes on beyond its end");
        }

        byte[] bytes = [.. _arrived, .. source];
        int taken = 0;
        while (TryApply(bytes.AsSpan(taken), out int used))
        {
            taken += used;
        }

        _arrived = bytes[taken..];
    }

    /// <summary>The function is reset, or its client is gone: as if nobody had asked for a migration.</summary>
    public virtual void Abandon()
    {
        _leaving = _arrived = [];
        _read = 0;
        _hasBegun = _hasState = _hasMoved = false;
    }

    /// <summary>Says who this is.</summary>
    protected abstract byte[] MakeOffer();

    /// <summary>Checks who comes.</summary>
    /// <exception cref="MigrationException">It does not fit here.</exception>
    protected abstract void RequireOffer(ReadOnlySpan<byte> offer);

    /// <summary>Stops everything that a guest could notice. May be called again.</summary>
    protected abstract ValueTask HaltAsync();

    /// <summary>Makes the state; the guest goes on elsewhere. Everything is stopped.</summary>
    /// <exception cref="MigrationException">There is none.</exception>
    protected abstract byte[] Leave();

    /// <summary>Takes a state over, or changes nothing.</summary>
    /// <exception cref="MigrationException">It does not fit here.</exception>
    protected abstract void Arrive(ReadOnlySpan<byte> state);

    /// <summary>Goes on.</summary>
    /// <param name="hasMoved">With a state that came.</param>
    protected abstract ValueTask ContinueAsync(bool hasMoved);

    private static byte[] Frame(uint kind, ReadOnlySpan<byte> bytes)
    {
        byte[] frame = new byte[HeadBytes + bytes.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(frame, kind);
        BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(sizeof(uint)), bytes.Length);
        bytes.CopyTo(frame.AsSpan(HeadBytes));
        return frame;
    }

    private bool TryApply(ReadOnlySpan<byte> bytes, out int used)
    {
        used = 0;
        if (bytes.Length < HeadBytes)
        {
            return false;
        }

        uint kind = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(bytes[sizeof(uint)..]);
        int most = kind switch
        {
            OfferKind => MaxOfferBytes,
            StateKind => MaxStateBytes,
            _ => -1,
        };
        if (_hasState || length > most)
        {
            throw new MigrationException(Errno.InvalidArgument, $"a frame of kind {kind} and {length} bytes");
        }

        if (bytes.Length < HeadBytes + (int)length)
        {
            return false;
        }

        used = HeadBytes + (int)length;
        if (kind == OfferKind)
        {
            RequireOffer(bytes[HeadBytes..used]);
        }
        else
        {
            Arrive(bytes[HeadBytes..used]);
            _hasState = _hasMoved = true;
        }

        return true;
    }
}

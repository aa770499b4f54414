// The device's configuration space: what the driver reads there, and what it says by writing. The races R1 and R10 are
// decided here; see VirtioVhostUserDevice.
using Outboard.Virtio;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

public sealed partial class VirtioVhostUserDevice
{
    private bool TellsWindows => (NegotiatedFeatures & VirtioVhostUserSpec.WindowStatus) != 0;

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> destination)
    {
        lock (_gate)
        {
            base.ReadConfig(offset, destination);
            if (offset != 0 || destination.IsEmpty)
            {
                return;
            }

            _mustBeSeen &= _isUp;
            if (TellsWindows && !Windows.AreEmpty)
            {
                destination[0] |= (byte)VirtioVhostUserSpec.WindowsInUse;
            }
        }
    }

    /// <inheritdoc/>
    public override bool WriteConfig(uint offset, ReadOnlySpan<byte> source, bool isMigration = false)
    {
        if (offset > Config.SizeBytes || source.Length > Config.SizeBytes - (int)offset || source.IsEmpty)
        {
            return false;
        }

        // Numbers are written as a whole; a transport that writes all of the space writes both of them.
        bool acknowledges = _options.NumbersSessions
            && offset + source.Length > VirtioVhostUserSpec.Acknowledged.Offset;
        if (offset < sizeof(uint))
        {
            WriteStatus(NumberAt(VirtioVhostUserSpec.Status, offset, source));
        }

        if (acknowledges)
        {
            Acknowledge(NumberAt(VirtioVhostUserSpec.Acknowledged, offset, source));
        }

        return acknowledges || offset < sizeof(uint);
    }

    private static ConfigSpace ConfigSpaceOf(VirtioVhostUserOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return options.NumbersSessions
            ? new ConfigSpace(
                VirtioVhostUserSpec.NumberedConfigBytes, VirtioVhostUserSpec.Status, VirtioVhostUserSpec.Acknowledged)
            : new ConfigSpace(VirtioVhostUserSpec.ConfigBytes, VirtioVhostUserSpec.Status);
    }

    /// <summary>A number of four bytes, of which those that are not written are 0.</summary>
    private static uint NumberAt(ConfigField field, uint offset, ReadOnlySpan<byte> source)
    {
        uint number = 0;
        for (int i = 0; i < sizeof(uint); i++)
        {
            int from = field.Offset + i - (int)offset;
            uint value = from >= 0 && from < source.Length ? source[from] : 0U;
            number |= value << (8 * i);
        }

        return number;
    }

    private void WriteStatus(uint status)
    {
        uint known = VirtioVhostUserSpec.BackendUp | VirtioVhostUserSpec.FrontendUp
            | (TellsWindows ? VirtioVhostUserSpec.WindowsInUse : 0);
        if ((status & ~known) != 0)
        {
            Break($"status 0x{status:x} has bits that nobody knows");
            return;
        }

        bool wantsUp = (status & VirtioVhostUserSpec.BackendUp) != 0;
        FrontendSession? ended = null;
        bool tells = false;
        lock (_gate)
        {
            if (wantsUp && !_isUp)
            {
                // R1: a driver that has not read the end of its session does not know what it arms for.
                tells = _mustBeSeen || _isBroken;
                if (!tells)
                {
                    // The driver has seen the end: what would tell it of that must not reach the next session.
                    Mailbox.Clear();
                    _isUp = true;
                    _released = Windows.ReleaseAsync(_released);
                    UpdateStatus();
                    _armed.TrySetResult();
                }
            }
            else if (!wantsUp)
            {
                // A driver that is not ready looks at no memory.
                ended = _isUp ? TakeDown(mustBeSeen: false) : null;
                _released = Windows.ReleaseAsync(_released);
            }
        }

        ended?.Close();
        if (tells)
        {
            NotifyConfigChanged();
        }
    }

    /// <summary>The driver knows whose messages it is going to get. Another number is that of a session that is over,
    /// or what a transport wrote that knows no parts.</summary>
    private void Acknowledge(uint number)
    {
        lock (_gate)
        {
            Config.Set(VirtioVhostUserSpec.Acknowledged, number);
            if (_session is not null && number == _number)
            {
                Mailbox.Hold(false);
            }
        }
    }

    private void UpdateStatus() => Config.Set(
        VirtioVhostUserSpec.Status,
        (_isUp ? VirtioVhostUserSpec.BackendUp : 0U) | (_isConnected ? VirtioVhostUserSpec.FrontendUp : 0U));
}

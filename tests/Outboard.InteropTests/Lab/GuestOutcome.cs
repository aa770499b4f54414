// GuestOutcome.cs - how a test machine ended.
namespace Outboard.InteropTests.Lab;

/// <param name="ExitStatus">The script's exit status, or null when the machine ended without telling one.</param>
/// <param name="Serial">Everything the machine wrote to its console.</param>
/// <param name="Messages">What QEMU itself had to say.</param>
/// <param name="Elapsed">From the start of QEMU to its end.</param>
internal sealed record GuestOutcome(int? ExitStatus, string Serial, string Messages, TimeSpan Elapsed)
{
    /// <summary>Fails with the machine's output unless the script ended with status 0.</summary>
    public GuestOutcome RequireSuccess()
    {
        if (ExitStatus == 0)
        {
            return this;
        }

        string verdict = ExitStatus is int status
            ? $"the guest's script failed with status {status}"
            : "the guest ended, panicked or reached its time limit without a status";
        throw new LabException($"{verdict} after {Elapsed}\nQEMU: {Messages}\nserial console:\n{Serial}");
    }
}

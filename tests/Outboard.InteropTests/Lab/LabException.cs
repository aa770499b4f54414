// LabException.cs - what went wrong in the rig itself or with a foreign program, as opposed to a failed assertion.
// The message carries the output of the program concerned, because that is what one needs to see first.
namespace Outboard.InteropTests.Lab;

/// <summary>A program of the rig could not be started, ended early or kept the test waiting for too long.</summary>
internal sealed class LabException : Exception
{
    public LabException(string message)
        : base(message)
    {
    }

    public LabException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}

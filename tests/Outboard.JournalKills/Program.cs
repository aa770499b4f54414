// For eng/journal-kills.sh. Exit status: 0 every request took effect exactly once, 1 one did not, 2 wrong arguments.
//
//   run KILLS SEED     kills that many devices, and prints a line for each kind of ring and device
//   child ...          a device, for the former
using System.Globalization;
using Outboard.JournalKills;

const string Usage = "usage: Outboard.JournalKills run KILLS SEED";
if (args is ["child", .. var rest])
{
    return KilledChild.Run(rest);
}

if (args is not ["run", var kills, var seed])
{
    Console.Error.WriteLine(Usage);
    return 2;
}

return JournalKillRun.RunAll(
    int.Parse(kills, CultureInfo.InvariantCulture), int.Parse(seed, CultureInfo.InvariantCulture)) ? 0 : 1;

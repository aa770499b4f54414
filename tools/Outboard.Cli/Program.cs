// The program "outboard": finds the command, runs it, and turns what goes wrong into one line on standard error.
// Exit status: 0 done, 1 it failed, 2 the command line is wrong, 70 a bug of this program.
using Outboard.Cli;

return Invocation.Read(args).Run();

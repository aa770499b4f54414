// The table of ranges that the SIGBUS handler looks into, and the handler's installation. One of each in a process,
// made when the first range is protected, never freed: a signal may arrive at any time.
//
// Table, in a page range of its own that is readable and writable:
//    0  the handler that was installed before ours (0 default, 1 ignore)
//    8  unused
//   16  entries that were ever used; those behind it need no look
//   24  a kernel sigaction of zeroes (32 bytes): "default", for the handler's own use
//   64  entries of 32 bytes: 0 first address, 8 end (0: free), 16 page size, 24 faults
// The handler takes no lock. An entry is opened by writing its end last and closed by writing its end first; the
// handler reads the end before and after the rest and passes over an entry whose end changed.
//
// The handler keeps the stack choice (SA_ONSTACK) and the mask of the handler before it, since it calls that one for
// every fault outside the table: the runtime's own, which turns a fault of managed code into its usual end.
// It cannot be C#: the fault may arrive while the thread runs managed code, where a reverse call into the runtime is
// forbidden. See BusErrorHandlerCode.
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

// SAFETY: all pointers lead into _table, a mapping of TableBytes that is never freed; entry numbers are below
// Capacity. Writers hold s_lock.
internal static unsafe class BusErrorTable
{
    /// <summary>Ranges in one process: 512 devices with a memory slot or two each; the handler's walk stays
    /// short.</summary>
    internal const int Capacity = 2048;

    private const int HeaderBytes = 64;
    private const nuint TableBytes = HeaderBytes + (Capacity * 32);
    private const nuint IgnoreHandler = 1;

    private static readonly Lock s_lock = new();
    private static byte* s_table;
    private static bool s_failed;

    /// <summary>Adds a range; -1 when it cannot be protected.</summary>
    internal static int Add(nuint address, nuint length, nuint pageSize)
    {
        lock (s_lock)
        {
            if (s_table is null && (s_failed || !TryInstall()))
            {
                s_failed = true;
                return -1;
            }

            for (int i = 0; i < Capacity; i++)
            {
                Entry* entry = EntryAt(i);
                if (entry->End == 0)
                {
                    entry->Faults = 0;
                    entry->PageSize = pageSize;
                    Volatile.Write(ref entry->Start, address);
                    Volatile.Write(ref entry->End, address + length);
                    ulong* used = (ulong*)(s_table + 16);
                    Volatile.Write(ref *used, Math.Max(*used, (ulong)i + 1));
                    return i;
                }
            }

            return -1;
        }
    }

    /// <summary>Frees an entry.</summary>
    internal static void Remove(int index)
    {
        lock (s_lock)
        {
            Volatile.Write(ref EntryAt(index)->End, 0);
        }
    }

    /// <summary>Faults that were counted in an entry.</summary>
    internal static ulong FaultsOf(int index) => Volatile.Read(ref EntryAt(index)->Faults);

    private static Entry* EntryAt(int index) => (Entry*)(s_table + HeaderBytes) + index;

    private static bool TryInstall()
    {
        byte[]? code = BusErrorHandlerCode.ForThisMachine(out int tableOffset);
        if (code is null)
        {
            return false;
        }

        const int writable = Libc.PROT_READ | Libc.PROT_WRITE;
        byte* table = Map(TableBytes, writable);
        byte* handler = Map((nuint)code.Length, writable);
        if (table is null || handler is null)
        {
            return false;
        }

        code.CopyTo(new Span<byte>(handler, code.Length));
        *(byte**)(handler + tableOffset) = table;

        // From here on the code is no longer writable. On arm64 the kernel makes the instruction cache coherent when a
        // page becomes executable for the first time, and nothing was ever executed at this address.
        if (Libc.mprotect(handler, (nuint)code.Length, Libc.PROT_READ | Libc.PROT_EXECUTE) != 0)
        {
            return false;
        }

        return TryReplaceHandler(table, handler);
    }

    private static bool TryReplaceHandler(byte* table, byte* handler)
    {
        Libc.SignalAction action;
        if (Libc.sigaction(Libc.SIGBUS, null, &action) != 0)
        {
            return false;
        }

        *(nuint*)table = action.Handler;
        if (action.Handler <= IgnoreHandler)
        {
            action.Flags |= Libc.SA_ONSTACK | Libc.SA_RESTART;
        }

        action.Flags = (action.Flags | Libc.SA_SIGINFO) & ~Libc.SA_RESETHAND;
        action.Handler = (nuint)handler;
        s_table = table;
        if (Libc.sigaction(Libc.SIGBUS, &action, null) == 0)
        {
            return true;
        }

        s_table = null;
        return false;
    }

    private static byte* Map(nuint length, int protection)
    {
        void* address = Libc.mmap(null, length, protection, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, -1, 0);
        return (nint)address == -1 ? null : (byte*)address;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Entry
    {
        internal nuint Start;
        internal nuint End;
        internal nuint PageSize;
        internal ulong Faults;
    }
}

// The SIGBUS handler as machine code, since it may run where no managed code may. Position independent, no stack but a
// few pushes, no library, no lock: look the faulting address up in the table, put a private page of zeroes there,
// return; for everything else, hand over to the handler that was there before.
//
// As C, for both architectures:
//   void handler(int signal, siginfo_t *info, void *context) {
//     if (info->si_code == BUS_ADRERR)
//       for (each entry)
//         if (entry.start <= info->si_addr && info->si_addr < entry.end) {
//           entry.faults++;
//           if (mmap(page of si_addr, entry.page_size, RW, PRIVATE | FIXED | ANONYMOUS) succeeds) return;
//           break;
//         }
//     if (previous is a function) return previous(signal, info, context);
//     if (previous == SIG_IGN && info->si_code <= 0) return;      // sent by a process: ignored as before
//     sigaction(SIGBUS, SIG_DFL);                                 // a fault repeats after the return, and kills
//     if (info->si_code <= 0) tgkill(getpid(), gettid(), SIGBUS); // a signal that was sent does not, so send it again
//   }
using System.Runtime.InteropServices;

namespace Outboard.Linux.Memory;

internal static class BusErrorHandlerCode
{
    private const int X64TableOffset = 6;
    private const int Arm64TableOffset = 288;

    /// <summary>The handler for this machine; null on an architecture without one.</summary>
    /// <param name="tableOffset">Where the table's address (8 bytes) is to be filled in.</param>
    internal static byte[]? ForThisMachine(out int tableOffset) =>
        For(RuntimeInformation.ProcessArchitecture, out tableOffset);

    /// <summary>The handler for an architecture.</summary>
    internal static byte[]? For(Architecture architecture, out int tableOffset)
    {
        tableOffset = architecture == Architecture.X64 ? X64TableOffset : Arm64TableOffset;
        return architecture switch
        {
            Architecture.X64 => X64.ToArray(),
            Architecture.Arm64 => Arm64.ToArray(),
            _ => null,
        };
    }

    // rdi signal, rsi siginfo (8 si_code, 16 si_addr), rdx context. r8 table, r9 entry, rcx entries left, rax address.
    private static ReadOnlySpan<byte> X64 =>
    [
        0xF3, 0x0F, 0x1E, 0xFA,                    // endbr64; a target of indirect branches
        0x49, 0xB8,                                // mov r8, table; its address is filled in at installation
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x83, 0x7E, 0x08, 0x02,                    // cmp dword [rsi+0x8], 0x2; si_code: BUS_ADRERR?
        0x75, 0x70,                                // jne chain
        0x48, 0x8B, 0x46, 0x10,                    // mov rax, qword [rsi+0x10]; si_addr
        0x49, 0x8B, 0x48, 0x10,                    // mov rcx, qword [r8+0x10]; entries used
        0x4D, 0x8D, 0x48, 0x40,                    // lea r9, [r8+0x40]; first entry
        // scan:
        0x48, 0x83, 0xE9, 0x01,                    // sub rcx, 0x1
        0x72, 0x5E,                                // jb chain; no entry left
        0x4D, 0x8B, 0x51, 0x08,                    // mov r10, qword [r9+0x8]; end
        0x4D, 0x8B, 0x19,                          // mov r11, qword [r9]; start
        0x4D, 0x3B, 0x51, 0x08,                    // cmp r10, qword [r9+0x8]; end, again: did the entry change?
        0x75, 0x0A,                                // jne next
        0x4C, 0x39, 0xD8,                          // cmp rax, r11; below the start?
        0x72, 0x05,                                // jb next
        0x4C, 0x39, 0xD0,                          // cmp rax, r10; below the end?
        0x72, 0x06,                                // jb hit
        // next:
        0x49, 0x83, 0xC1, 0x20,                    // add r9, 0x20
        0xEB, 0xDD,                                // jmp scan
        // hit:
        0xF0, 0x49, 0xFF, 0x41, 0x18,              // lock inc qword [r9+0x18]; count the fault
        0x57,                                      // push rdi; the three arguments of a handler and the table,
        0x56,                                      // push rsi; for the case that the mapping fails
        0x52,                                      // push rdx
        0x41, 0x50,                                // push r8
        0x49, 0x8B, 0x71, 0x10,                    // mov rsi, qword [r9+0x10]; length: one page
        0x48, 0x89, 0xF7,                          // mov rdi, rsi
        0x48, 0xF7, 0xDF,                          // neg rdi
        0x48, 0x21, 0xC7,                          // and rdi, rax; address: the page that faulted
        0xBA, 0x03, 0x00, 0x00, 0x00,              // mov edx, 0x3; PROT_READ | PROT_WRITE
        0x41, 0xBA, 0x32, 0x00, 0x00, 0x00,        // mov r10d, 0x32; MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        0x49, 0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF,  // mov r8, 0xffffffffffffffff; no file
        0x45, 0x31, 0xC9,                          // xor r9d, r9d; offset 0
        0xB8, 0x09, 0x00, 0x00, 0x00,              // mov eax, 0x9; mmap
        0x0F, 0x05,                                // syscall
        0x41, 0x58,                                // pop r8
        0x5A,                                      // pop rdx
        0x5E,                                      // pop rsi
        0x5F,                                      // pop rdi
        0x48, 0x3D, 0x01, 0xF0, 0xFF, 0xFF,        // cmp rax, 0xfffffffffffff001; an errno?
        0x73, 0x01,                                // jae chain
        0xC3,                                      // ret
        // chain:
        0x49, 0x8B, 0x00,                          // mov rax, qword [r8]; the handler before ours
        0x48, 0x83, 0xF8, 0x01,                    // cmp rax, 0x1; 0 SIG_DFL, 1 SIG_IGN
        0x76, 0x02,                                // jbe default
        0xFF, 0xE0,                                // jmp rax; with our arguments and our return address
        // default:
        0x44, 0x8B, 0x4E, 0x08,                    // mov r9d, dword [rsi+0x8]; si_code; keeps the flags
        0x72, 0x05,                                // jb restore
        0x45, 0x85, 0xC9,                          // test r9d, r9d; ignored: was it sent by a process?
        0x7E, 0x3B,                                // jle done
        // restore:
        0x49, 0x8D, 0x70, 0x18,                    // lea rsi, [r8+0x18]; SIG_DFL
        0xBF, 0x07, 0x00, 0x00, 0x00,              // mov edi, 0x7; SIGBUS
        0x31, 0xD2,                                // xor edx, edx
        0x41, 0xBA, 0x08, 0x00, 0x00, 0x00,        // mov r10d, 0x8; size of the mask
        0xB8, 0x0D, 0x00, 0x00, 0x00,              // mov eax, 0xd; rt_sigaction
        0x0F, 0x05,                                // syscall
        0x45, 0x85, 0xC9,                          // test r9d, r9d; ignored: was it sent by a process?
        0x7F, 0x1E,                                // jg done
        0xB8, 0x27, 0x00, 0x00, 0x00,              // mov eax, 0x27; sent by a process: send it again, for good; getpid
        0x0F, 0x05,                                // syscall
        0x89, 0xC7,                                // mov edi, eax
        0xB8, 0xBA, 0x00, 0x00, 0x00,              // mov eax, 0xba; gettid
        0x0F, 0x05,                                // syscall
        0x89, 0xC6,                                // mov esi, eax
        0xBA, 0x07, 0x00, 0x00, 0x00,              // mov edx, 0x7; SIGBUS, blocked until we return
        0xB8, 0xEA, 0x00, 0x00, 0x00,              // mov eax, 0xea; tgkill
        0x0F, 0x05,                                // syscall
        // done:
        0xC3,                                      // ret
    ];

    // x0 signal, x1 siginfo (8 si_code, 16 si_addr), x2 context. x9 table, x13 entry, x12 entries left, x11 address.
    private static ReadOnlySpan<byte> Arm64 =>
    [
        0x09, 0x09, 0x00, 0x58,                    // ldr x9, table; the table
        0x2A, 0x08, 0x40, 0xB9,                    // ldr w10, [x1, #8]; si_code
        0x5F, 0x09, 0x00, 0x71,                    // cmp w10, #2; BUS_ADRERR?
        0x21, 0x05, 0x00, 0x54,                    // b.ne chain
        0x2B, 0x08, 0x40, 0xF9,                    // ldr x11, [x1, #16]; si_addr
        0x2C, 0x09, 0x40, 0xF9,                    // ldr x12, [x9, #16]; entries used
        0x2D, 0x01, 0x01, 0x91,                    // add x13, x9, #64; first entry
        // scan:
        0xAC, 0x04, 0x00, 0xB4,                    // cbz x12, chain
        0x8C, 0x05, 0x00, 0xD1,                    // sub x12, x12, #1
        0xAE, 0x21, 0x00, 0x91,                    // add x14, x13, #8
        0xCF, 0xFD, 0xDF, 0xC8,                    // ldar x15, [x14]; end
        0xB0, 0xFD, 0xDF, 0xC8,                    // ldar x16, [x13]; start
        0xD1, 0xFD, 0xDF, 0xC8,                    // ldar x17, [x14]; end, again: did the entry change?
        0xFF, 0x01, 0x11, 0xEB,                    // cmp x15, x17
        0xA1, 0x00, 0x00, 0x54,                    // b.ne next
        0x7F, 0x01, 0x10, 0xEB,                    // cmp x11, x16; below the start?
        0x63, 0x00, 0x00, 0x54,                    // b.lo next
        0x7F, 0x01, 0x0F, 0xEB,                    // cmp x11, x15; below the end?
        0x63, 0x00, 0x00, 0x54,                    // b.lo hit
        // next:
        0xAD, 0x81, 0x00, 0x91,                    // add x13, x13, #32
        0xF3, 0xFF, 0xFF, 0x17,                    // b scan
        // hit:
        0xAE, 0x61, 0x00, 0x91,                    // add x14, x13, #24
        // count:
        0xCF, 0x7D, 0x5F, 0xC8,                    // ldxr x15, [x14]; count the fault
        0xEF, 0x05, 0x00, 0x91,                    // add x15, x15, #1
        0xCF, 0x7D, 0x10, 0xC8,                    // stxr w16, x15, [x14]
        0xB0, 0xFF, 0xFF, 0x35,                    // cbnz w16, count
        0xEE, 0x03, 0x00, 0xAA,                    // mov x14, x0; the three arguments of a handler,
        0xEF, 0x03, 0x01, 0xAA,                    // mov x15, x1; for the case that the mapping fails
        0xF0, 0x03, 0x02, 0xAA,                    // mov x16, x2
        0xA1, 0x09, 0x40, 0xF9,                    // ldr x1, [x13, #16]; length: one page
        0xE0, 0x03, 0x01, 0xCB,                    // neg x0, x1
        0x00, 0x00, 0x0B, 0x8A,                    // and x0, x0, x11; address: the page that faulted
        0x62, 0x00, 0x80, 0xD2,                    // mov x2, #3; PROT_READ | PROT_WRITE
        0x43, 0x06, 0x80, 0xD2,                    // mov x3, #50; MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        0x04, 0x00, 0x80, 0x92,                    // mov x4, #-1; no file
        0x05, 0x00, 0x80, 0xD2,                    // mov x5, #0; offset 0
        0xC8, 0x1B, 0x80, 0xD2,                    // mov x8, #222; mmap
        0x01, 0x00, 0x00, 0xD4,                    // svc #0
        0x1F, 0xFC, 0x3F, 0xB1,                    // cmn x0, #4095; an errno?
        0xE0, 0x03, 0x0E, 0xAA,                    // mov x0, x14
        0xE1, 0x03, 0x0F, 0xAA,                    // mov x1, x15
        0xE2, 0x03, 0x10, 0xAA,                    // mov x2, x16
        0x42, 0x00, 0x00, 0x54,                    // b.hs chain
        0xC0, 0x03, 0x5F, 0xD6,                    // ret
        // chain:
        0x30, 0x01, 0x40, 0xF9,                    // ldr x16, [x9]; the handler before ours
        0x1F, 0x06, 0x00, 0xF1,                    // cmp x16, #1; 0 SIG_DFL, 1 SIG_IGN
        0x49, 0x00, 0x00, 0x54,                    // b.ls default
        0x00, 0x02, 0x1F, 0xD6,                    // br x16; with our arguments and our return address
        // default:
        0x2A, 0x08, 0x40, 0xB9,                    // ldr w10, [x1, #8]; si_code
        0x63, 0x00, 0x00, 0x54,                    // b.lo restore
        0x5F, 0x01, 0x00, 0x71,                    // cmp w10, #0; sent by a process?
        0x6D, 0x02, 0x00, 0x54,                    // b.le done
        // restore:
        0x21, 0x61, 0x00, 0x91,                    // add x1, x9, #24; SIG_DFL
        0xE0, 0x00, 0x80, 0xD2,                    // mov x0, #7; SIGBUS
        0x02, 0x00, 0x80, 0xD2,                    // mov x2, #0
        0x03, 0x01, 0x80, 0xD2,                    // mov x3, #8; size of the mask
        0xC8, 0x10, 0x80, 0xD2,                    // mov x8, #134; rt_sigaction
        0x01, 0x00, 0x00, 0xD4,                    // svc #0
        0x5F, 0x01, 0x00, 0x71,                    // cmp w10, #0; sent by a process?
        0x6C, 0x01, 0x00, 0x54,                    // b.gt done
        0x88, 0x15, 0x80, 0xD2,                    // mov x8, #172; sent by a process: send it again, for good; getpid
        0x01, 0x00, 0x00, 0xD4,                    // svc #0
        0xEB, 0x03, 0x00, 0xAA,                    // mov x11, x0
        0x48, 0x16, 0x80, 0xD2,                    // mov x8, #178; gettid
        0x01, 0x00, 0x00, 0xD4,                    // svc #0
        0xE1, 0x03, 0x00, 0xAA,                    // mov x1, x0
        0xE0, 0x03, 0x0B, 0xAA,                    // mov x0, x11
        0xE2, 0x00, 0x80, 0xD2,                    // mov x2, #7; SIGBUS, blocked until we return
        0x68, 0x10, 0x80, 0xD2,                    // mov x8, #131; tgkill
        0x01, 0x00, 0x00, 0xD4,                    // svc #0
        // done:
        0xC0, 0x03, 0x5F, 0xD6,                    // ret
        0x1F, 0x20, 0x03, 0xD5,                    // nop; aligns the address
        0x00, 0x00, 0x00, 0x00,                    // table: its address, filled in at installation
        0x00, 0x00, 0x00, 0x00,
    ];
}

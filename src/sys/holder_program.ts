/**
 * The program of a holder (see holder.ts) as the bytes of a static ELF executable. It names itself, lets any
 * process of its user take its descriptors (where Yama would allow only descendants to), closes every
 * descriptor but 0 and 1, and sleeps until it is killed. It has one page of text, a stack, and nothing else.
 *
 * Layout: ELF header (64 bytes), two program headers (56 each), the process's name (16), the instructions.
 * Sources: elf(5); arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h for aarch64.
 */
import { PsmaError } from "../core/mod.ts";

/** As `ps` and `pgrep` show it; at most 15 characters. */
export const HOLDER_NAME = "psma-holder";

const LOADED_AT = 0x400000;
const NAME_AT = 64 + 2 * 56, NAME_BYTES = 16;
const CODE_AT = NAME_AT + NAME_BYTES;
const ELF_MACHINE = { x86_64: 62, aarch64: 183 } as const;
const PAGE_BYTES_MAX = 0x10000;

export type HolderArchitecture = keyof typeof ELF_MACHINE;

/** A syscall's number and arguments are in eax, edi, rsi, edx. */
// deno-fmt-ignore
const CODE_X86_64 = [
  0xbf, 2, 0, 0, 0,                   // mov edi, 2
  0x83, 0xce, 0xff,                   // or esi, -1
  0x31, 0xd2,                         // xor edx, edx
  0xb8, 0xb4, 0x01, 0, 0,             // mov eax, close_range
  0x0f, 0x05,                         // syscall
  0xbf, 15, 0, 0, 0,                  // mov edi, PR_SET_NAME
  0xbe, NAME_AT, 0, 0x40, 0,          // mov esi, name
  0xb8, 157, 0, 0, 0,                 // mov eax, prctl
  0x0f, 0x05,                         // syscall
  0xbf, 0x61, 0x6d, 0x61, 0x59,       // mov edi, PR_SET_PTRACER
  0x48, 0x83, 0xce, 0xff,             // or rsi, PR_SET_PTRACER_ANY
  0xb8, 157, 0, 0, 0,                 // mov eax, prctl
  0x0f, 0x05,                         // syscall
  0xb8, 34, 0, 0, 0,                  // again: mov eax, pause
  0x0f, 0x05,                         // syscall
  0xeb, 0xf7,                         // jmp again
];

/** A syscall's number is in x8, its arguments in x0 to x4. There is no pause: ppoll of nothing is one. */
// deno-fmt-ignore
const CODE_AARCH64 = [
  0x40, 0x00, 0x80, 0xd2,             // mov x0, 2
  0x01, 0x00, 0x80, 0x12,             // mov w1, -1
  0x02, 0x00, 0x80, 0xd2,             // mov x2, 0
  0x88, 0x36, 0x80, 0xd2,             // mov x8, close_range
  0x01, 0x00, 0x00, 0xd4,             // svc 0
  0xe0, 0x01, 0x80, 0xd2,             // mov x0, PR_SET_NAME
  0x01, 0x16, 0x80, 0xd2,             // mov x1, name (low half: NAME_AT)
  0x01, 0x08, 0xa0, 0xf2,             // movk x1, name (high half)
  0xe8, 0x14, 0x80, 0xd2,             // mov x8, prctl
  0x01, 0x00, 0x00, 0xd4,             // svc 0
  0x20, 0xac, 0x8d, 0xd2,             // mov x0, PR_SET_PTRACER (low half)
  0x20, 0x2c, 0xab, 0xf2,             // movk x0, PR_SET_PTRACER (high half)
  0x01, 0x00, 0x80, 0x92,             // mov x1, PR_SET_PTRACER_ANY
  0xe8, 0x14, 0x80, 0xd2,             // mov x8, prctl
  0x01, 0x00, 0x00, 0xd4,             // svc 0
  0x00, 0x00, 0x80, 0xd2,             // again: mov x0, 0
  0x01, 0x00, 0x80, 0xd2,             // mov x1, 0
  0x02, 0x00, 0x80, 0xd2,             // mov x2, 0
  0x03, 0x00, 0x80, 0xd2,             // mov x3, 0
  0x04, 0x00, 0x80, 0xd2,             // mov x4, 0
  0x28, 0x09, 0x80, 0xd2,             // mov x8, ppoll
  0x01, 0x00, 0x00, 0xd4,             // svc 0
  0xf9, 0xff, 0xff, 0x17,             // b again
];

const CODE: Readonly<Record<HolderArchitecture, readonly number[]>> = {
  x86_64: CODE_X86_64,
  aarch64: CODE_AARCH64,
};

/** @returns the executable file. @throws {PsmaError} sys/architecture where there is none. */
export function holderProgram(architecture: string = Deno.build.arch): Uint8Array<ArrayBuffer> {
  if (!Object.hasOwn(CODE, architecture)) {
    throw new PsmaError("sys/architecture", `Cannot hold descriptors on ${architecture}`);
  }
  const code = CODE[architecture as HolderArchitecture];
  const file = new Uint8Array(CODE_AT + code.length), view = new DataView(file.buffer);
  const u16 = (at: number, value: number) => view.setUint16(at, value, true);
  const u32 = (at: number, value: number) => view.setUint32(at, value, true);
  const u64 = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
  // Elf64_Ehdr: 64 bits, little-endian, executable; entry; program headers.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  u16(16, 2);
  u16(18, ELF_MACHINE[architecture as HolderArchitecture]);
  u32(20, 1);
  u64(24, LOADED_AT + CODE_AT);
  u64(32, 64);
  u16(52, 64);
  u16(54, 56);
  u16(56, 2);
  // PT_LOAD, readable and executable: the whole file.
  u32(64, 1);
  u32(68, 5);
  u64(80, LOADED_AT);
  u64(88, LOADED_AT);
  u64(96, file.length);
  u64(104, file.length);
  u64(112, PAGE_BYTES_MAX);
  // PT_GNU_STACK, readable and writable: without it the stack would be executable.
  u32(120, 0x6474e551);
  u32(124, 6);
  file.set(new TextEncoder().encode(HOLDER_NAME), NAME_AT);
  file.set(code, CODE_AT);
  return file;
}

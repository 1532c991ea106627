/** The holder's executable, field by field as elf(5) has them. */
import { equal, throws } from "node:assert/strict";
import { holderProgram } from "../../../src/sys/holder_program.ts";

for (const [architecture, machine] of [["x86_64", 62], ["aarch64", 183]] as const) {
  Deno.test(`holderProgram() of ${architecture} is a static executable with one page of text`, () => {
    const file = holderProgram(architecture), view = new DataView(file.buffer);
    const u64 = (at: number) => Number(view.getBigUint64(at, true));
    equal(new TextDecoder().decode(file.subarray(1, 4)), "ELF");
    equal(view.getUint16(16, true), 2, "ET_EXEC");
    equal(view.getUint16(18, true), machine);
    equal(u64(32), 64, "program headers");
    equal(view.getUint16(56, true), 2, "their number");
    const [load, stack] = [64, 64 + 56];
    equal(view.getUint32(load, true), 1, "PT_LOAD");
    equal(view.getUint32(load + 4, true), 5, "readable, executable, not writable");
    equal(u64(load + 8), 0);
    equal(u64(load + 32), file.length, "all of the file");
    equal(u64(load + 40), file.length);
    equal(view.getUint32(stack, true), 0x6474e551, "PT_GNU_STACK");
    equal(view.getUint32(stack + 4, true), 6, "not executable");
    const entry = u64(24) - u64(load + 16);
    equal(new TextDecoder().decode(file.subarray(entry - 16, entry)), "psma-holder\0\0\0\0\0");
    equal((file.length - entry) % (architecture === "aarch64" ? 4 : 1), 0);
  });
}

Deno.test("holderProgram() refuses an architecture that it has no instructions for", () => {
  throws(() => holderProgram("riscv64"), { code: "sys/architecture" });
});

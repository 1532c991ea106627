import { equal } from "node:assert/strict";
import { Lag } from "../../../src/mirror/lag.ts";

/** A target that was complete at time 0. */
function whole(): Lag {
  const lag = new Lag({ nowMs: 0, changedBytes: 0 });
  lag.isWhole({ nowMs: 0, changedBytes: 0, dirtyBytes: 0 });
  return lag;
}

Deno.test("Lag is unknown until the target was complete once", () => {
  const lag = new Lag({ nowMs: 0, changedBytes: 0 });
  lag.look({ nowMs: 10, changedBytes: 1, dirtyBytes: 1 });
  equal(lag.oldestMs, undefined);
  lag.roundBegins({ nowMs: 20, changedBytes: 1, dirtyBytes: 1 });
  lag.roundEnds({ nowMs: 30, changedBytes: 1, dirtyBytes: 0 }, true);
  equal(lag.oldestMs, null);
});

Deno.test("Lag counts from the look before the first write, not from the last round", () => {
  const lag = whole();
  lag.look({ nowMs: 900, changedBytes: 0, dirtyBytes: 0 });
  lag.look({ nowMs: 1000, changedBytes: 8, dirtyBytes: 8 });
  lag.look({ nowMs: 1100, changedBytes: 16, dirtyBytes: 16 });
  equal(lag.oldestMs, 900);
  equal(lag.changedMs, 1100);
});

Deno.test("a complete round leaves what was written while it went on; one that is not, everything", () => {
  for (const isComplete of [true, false]) {
    const lag = whole();
    lag.look({ nowMs: 100, changedBytes: 8, dirtyBytes: 8 });
    lag.roundBegins({ nowMs: 200, changedBytes: 8, dirtyBytes: 8 });
    lag.look({ nowMs: 250, changedBytes: 8, dirtyBytes: 4 });
    lag.look({ nowMs: 300, changedBytes: 16, dirtyBytes: 4 });
    lag.roundEnds({ nowMs: 400, changedBytes: 16, dirtyBytes: 8 }, isComplete);
    equal(lag.oldestMs, isComplete ? 250 : 0);
  }
});

Deno.test("Lag counts also what became dirty without a write: a lost target, a difference that was found", () => {
  const lag = whole();
  lag.look({ nowMs: 500, changedBytes: 0, dirtyBytes: 0 });
  lag.look({ nowMs: 600, changedBytes: 0, dirtyBytes: 64 });
  equal(lag.oldestMs, 500);
});

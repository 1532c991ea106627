/**
 * One mapping of a YAML file, read key by key. Each getter marks its key as known, checks the value
 * and reports what is wrong with its place; `end()` reports the keys that nobody asked for.
 *
 * After a problem a getter answers with a stand-in, so that reading goes on and every fault is told;
 * a configuration with problems is never used.
 */
import { isMap, isScalar, isSeq, type LineCounter, type Node, type Pair, type YAMLMap } from "yaml";
import {
  formatDuration,
  formatSize,
  parseDuration,
  parsePercent,
  parseSize,
  PsmaError,
} from "../core/mod.ts";
import { type ConfigProblem, nearest } from "./config_problems.ts";

export interface ConfigSource {
  readonly lines: LineCounter;
  readonly problems: ConfigProblem[];
}

type Parser<T> = (raw: string | number) => T;

export class Section {
  readonly #known: string[] = [];

  /** @param node undefined: the section is absent and every key takes its default. */
  constructor(
    readonly path: string,
    readonly source: ConfigSource,
    readonly node: YAMLMap | undefined,
    readonly offset: number,
  ) {}

  get present(): boolean {
    return this.node !== undefined;
  }

  has(key: string): boolean {
    return this.#pair(key) !== undefined;
  }

  /** Bytes. @param minimum bytes. */
  size(
    key: string,
    { fallback, minimum = 1 }: { fallback?: number; minimum?: number } = {},
  ): number {
    const value = this.#scalar(key, parseSize as Parser<number>, fallback);
    if (this.has(key) && value < minimum) {
      this.refuse(key, `it must be at least ${formatSize(minimum)}`);
    }
    return value;
  }

  /** Bytes per second, written `50MiB` or `50MiB/s`. @param minimum bytes per second. */
  rate(key: string, { minimum }: { minimum: number }): number {
    const value = this.#scalar(
      key,
      (raw): number => parseSize(String(raw).replace(/\/s$/, "")),
      undefined,
    );
    if (this.has(key) && value < minimum) {
      this.refuse(key, `it must be at least ${formatSize(minimum)} per second`);
    }
    return value;
  }

  /** Milliseconds. */
  duration(
    key: string,
    { fallback, minimum = 0 }: { fallback?: number; minimum?: number } = {},
  ): number {
    const value = this.#scalar(key, parseDuration, fallback);
    if (this.has(key) && value < minimum) {
      this.refuse(key, `it must be at least ${formatDuration(minimum)}`);
    }
    return value;
  }

  /** A fraction strictly above `above` and at most `atMost`. */
  share(
    key: string,
    { fallback, above = 0, atMost = 1 }: { fallback?: number; above?: number; atMost?: number },
  ): number {
    const value = this.#scalar(key, parsePercent, fallback);
    if (value <= above || value > atMost) {
      this.refuse(key, `it must be above ${above * 100}% and at most ${atMost * 100}%`);
    }
    return value;
  }

  /** A factor in percent that may exceed 100 %. */
  ratio(key: string, { fallback, minimum }: { fallback: number; minimum: number }): number {
    const value = this.#scalar(key, (raw) => {
      const match = /^\s*(\d+(?:\.\d+)?)\s*%\s*$/.exec(String(raw));
      if (!match) throw new PsmaError("usage/percent", `"${raw}" is not a percentage like 25%`);
      return Number(match[1]) / 100;
    }, fallback);
    if (this.has(key) && value < minimum) this.refuse(key, `it must be at least ${minimum * 100}%`);
    return value;
  }

  count(
    key: string,
    { fallback, minimum = 0, maximum }: { fallback: number; minimum?: number; maximum: number },
  ): number {
    const value = this.#scalar(key, (raw) => Number(raw), fallback);
    if (!Number.isInteger(value) || value < minimum || value > maximum) {
      this.refuse(key, `it must be a whole number from ${minimum} to ${maximum}`);
    }
    return value;
  }

  flag(key: string, fallback: boolean): boolean {
    const pair = this.#pair(key);
    if (pair === undefined) return fallback;
    const raw = isScalar(pair.value) ? pair.value.value : undefined;
    if (typeof raw === "boolean") return raw;
    this.refuse(key, "it is neither true nor false");
    return fallback;
  }

  text(key: string, fallback?: string): string {
    return this.#scalar(key, String, fallback);
  }

  /** One of `values`; those in `later` are known words that this version cannot serve yet. */
  choice<T extends string>(
    key: string,
    { values, later = [], fallback }: {
      values: readonly T[];
      later?: readonly string[];
      fallback?: T;
    },
  ): T {
    const first = values[0] as T;
    const value = this.text(key, fallback ?? (this.has(key) ? first : undefined));
    const found = values.find((one) => one === value);
    if (found !== undefined || !this.has(key)) return found ?? first;
    if (later.includes(value)) {
      this.report(key, "config/unsupported", `"${value}" is not supported in this version`, {
        hint: `Use ${values.join(" or ")}.`,
      });
    } else {
      const meant = nearest(value, [...values, ...later]);
      this.report(key, "config/value", `"${value}" is none of ${values.join(", ")}`, {
        ...(meant === undefined ? {} : { hint: `Did you mean "${meant}"?` }),
      });
    }
    return first;
  }

  /** The mapping under `key`; an absent one reads as empty. */
  section(key: string): Section {
    const pair = this.#pair(key);
    const path = this.#join(key);
    if (pair === undefined) return new Section(path, this.source, undefined, this.offset);
    const { value } = pair;
    if (isMap(value)) return new Section(path, this.source, value, keyOffset(pair));
    if (!isNull(value)) this.report(key, "config/value", "it is not a mapping of keys to values");
    return new Section(path, this.source, undefined, keyOffset(pair));
  }

  /** Every key with the mapping under it: for sections whose keys are names. */
  sections(): [string, Section][] {
    return (this.node?.items ?? []).map((pair) => {
      const key = keyText(pair as Pair);
      return [key, this.section(key)];
    });
  }

  /** The mappings of the list under `key`; an absent one is empty. @param most items. */
  list(key: string, { most }: { most: number }): Section[] {
    const pair = this.#pair(key);
    if (pair === undefined || isNull(pair.value)) return [];
    if (!isSeq(pair.value)) {
      this.report(key, "config/value", "it is not a list");
      return [];
    }
    const { items } = pair.value;
    if (items.length > most) this.refuse(key, `it has ${items.length} entries, more than ${most}`);
    return items.slice(0, most).flatMap((item, index) => {
      const at = (item as Node | null)?.range?.[0] ?? keyOffset(pair);
      if (isMap(item)) return [new Section(`${this.#join(key)}[${index}]`, this.source, item, at)];
      const why = `entry ${index + 1} is not a mapping of keys to values`;
      this.report(key, "config/value", why, { at });
      return [];
    });
  }

  /** Words of a list, or of a text with commas between them; undefined where the key is absent. */
  words(key: string): string[] | undefined {
    const pair = this.#pair(key);
    if (pair === undefined) return undefined;
    const plain = isSeq(pair.value) ? pair.value.items : [pair.value];
    const words = plain.flatMap((item) =>
      isScalar(item) && typeof item.value === "string" ? item.value.split(",") : []
    );
    if (words.length < plain.length) this.refuse(key, "it is not a list of words");
    return words.map((word) => word.trim());
  }

  /** Reports every key that no getter asked for. */
  end(): void {
    for (const pair of this.node?.items ?? []) {
      const key = keyText(pair as Pair);
      if (this.#known.includes(key)) continue;
      const meant = nearest(key, this.#known);
      this.report(key, "config/unknown-key", "it is not a known key", {
        hint: meant === undefined
          ? `Known here: ${this.#known.join(", ")}.`
          : `Did you mean "${meant}"?`,
        at: keyOffset(pair as Pair),
      });
    }
  }

  refuse(key: string, why: string, hint?: string): void {
    this.report(key, "config/value", why, hint === undefined ? {} : { hint });
  }

  /** @param key empty: the section itself. */
  report(
    key: string,
    code: string,
    why: string,
    { hint, at }: { hint?: string; at?: number } = {},
  ): void {
    const path = key === "" ? this.path : this.#join(key);
    const { line, col } = this.source.lines.linePos(at ?? this.#offsetOf(key));
    this.source.problems.push({
      code,
      line: Math.max(1, line),
      column: Math.max(1, col),
      path,
      message: `Cannot use ${path === "" ? "the configuration" : path}: ${why}`,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  #scalar<T>(key: string, parse: Parser<T>, fallback: T | undefined): T {
    const pair = this.#pair(key);
    if (pair === undefined) {
      if (fallback !== undefined) return fallback;
      this.report(key, "config/missing", "it is required and absent", { at: this.offset });
      return undefined as T;
    }
    const raw = isScalar(pair.value) ? pair.value.value : undefined;
    if (typeof raw !== "string" && typeof raw !== "number") {
      this.refuse(key, "it has no plain value");
      return fallback as T;
    }
    try {
      return parse(raw);
    } catch (error) {
      if (!(error instanceof PsmaError)) throw error;
      this.refuse(key, error.message.replace(/^Cannot [^:]*: /, ""), error.hint);
      return fallback as T;
    }
  }

  #pair(key: string): Pair | undefined {
    if (!this.#known.includes(key)) this.#known.push(key);
    return this.node?.items.find((pair) => keyText(pair as Pair) === key) as Pair | undefined;
  }

  #offsetOf(key: string): number {
    const pair = this.node?.items.find((one) => keyText(one as Pair) === key) as Pair | undefined;
    return pair === undefined ? this.offset : valueOffset(pair) ?? keyOffset(pair);
  }

  #join(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }
}

function keyText(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
}

function keyOffset(pair: Pair): number {
  return (pair.key as Node | null)?.range?.[0] ?? 0;
}

function valueOffset(pair: Pair): number | undefined {
  return (pair.value as Node | null)?.range?.[0];
}

function isNull(node: unknown): boolean {
  return node === null || (isScalar(node) && node.value === null);
}

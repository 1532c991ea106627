/** Names that reach paths, URIs and exports: checked once, at the door. */
import { PsmaError } from "./errors.ts";

const NAME = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;

/**
 * A volume or store name: 1 to 64 of `a-z 0-9 . _ -`, beginning and ending with a letter or digit,
 * and without `..`, so that it is safe as a file name and in a URI.
 * @throws {PsmaError} usage/name
 */
export function checkName(name: string, what = "volume"): string {
  if (!NAME.test(name) || name.includes("..")) {
    throw new PsmaError("usage/name", `Cannot use ${what} name: "${name}" is not a valid name`, {
      hint: "Use 1 to 64 lower-case letters, digits, dots, dashes or underscores.",
    });
  }
  return name;
}

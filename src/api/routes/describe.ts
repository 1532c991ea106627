/** Pieces of route descriptions that many routes share. */
import type { z } from "@hono/zod-openapi";
import { PROBLEM_TYPE } from "../../core/mod.ts";
import { ProblemSchema } from "../schemas.ts";

export const problem = {
  description: "What went wrong",
  content: { [PROBLEM_TYPE]: { schema: ProblemSchema } },
} as const;

/** A JSON answer of this shape. */
export function json<Schema extends z.ZodType>(schema: Schema, description: string): {
  description: string;
  content: { "application/json": { schema: Schema } };
} {
  return { description, content: { "application/json": { schema } } };
}

/** A JSON body of this shape. */
export function body<Schema extends z.ZodType>(schema: Schema): {
  content: { "application/json": { schema: Schema } };
  required: true;
} {
  return { content: { "application/json": { schema } }, required: true };
}

/** What changes something asks for the token. */
export const guarded: { bearer: string[] }[] = [{ bearer: [] }];

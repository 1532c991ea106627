/** What every route works with. */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Agent } from "../agent/mod.ts";
import type { Clock } from "../core/mod.ts";
import { schemaFault } from "./schemas.ts";

export interface RouteContext {
  readonly agent: Agent;
  readonly clock: Clock;
  /** Aborts when the server is about to stop: live streams end then. */
  readonly closing: AbortSignal;
}

/** A router whose schema faults become problems. */
export function newRouter(): OpenAPIHono {
  return new OpenAPIHono({
    defaultHook: (result) => {
      if (!result.success) throw schemaFault(result.error);
    },
  });
}

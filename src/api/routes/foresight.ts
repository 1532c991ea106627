/** What was, what is to come, and what the agent would do about it. */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { PsmaError } from "../../core/mod.ts";
import type { RouteContext } from "../context.ts";
import {
  ForecastQuery,
  ForecastSchema,
  HistoryQuery,
  HistorySchema,
  PlanSchema,
  VolumeParameter,
} from "../schemas.ts";
import { json, problem } from "./describe.ts";

const HISTORY_MS = 3_600_000;
const HISTORY_POINTS = 120;
const HISTORY_POINTS_MAX = 10_000;

export function addForesightRoutes(app: OpenAPIHono, { agent, clock }: RouteContext): void {
  const params = VolumeParameter;
  const faults = { 400: problem, 404: problem, 409: problem };
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes/{volume}/forecast",
      summary: "Quantiles of a metric, by step",
      request: { params, query: ForecastQuery },
      responses: { 200: json(ForecastSchema, "The forecast"), ...faults },
    }),
    async (context) => {
      const { metric, horizon, levels } = context.req.valid("query");
      const forecast = await agent.forecast(context.req.valid("param").volume, {
        metric,
        ...(horizon === undefined ? {} : { horizon_ms: horizon }),
        ...(levels === undefined ? {} : { levels }),
      });
      return context.json(forecast, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes/{volume}/plan",
      summary: "What the agent would do now, and why",
      request: { params },
      responses: { 200: json(PlanSchema, "The plan"), ...faults },
    }),
    async (context) => context.json(await agent.plan(context.req.valid("param").volume), 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes/{volume}/history",
      summary: "A metric as it was",
      request: { params, query: HistoryQuery },
      responses: { 200: json(HistorySchema, "The history"), ...faults },
    }),
    async (context) => {
      const query = historyQuery(context.req.valid("query"), clock.nowMs());
      const points = await agent.history(context.req.valid("param").volume, query);
      return context.json({ metric: query.metric, step_ms: query.step_ms, points }, 200);
    },
  );
}

interface AskedHistory {
  readonly metric: string;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly step?: number | undefined;
}

/** Fills in what was not asked for: the last hour, in some hundred steps. */
function historyQuery(
  { metric, from, to, step }: AskedHistory,
  now_ms: number,
): { metric: string; from_ms: number; to_ms: number; step_ms: number } {
  const to_ms = to === undefined ? now_ms : Date.parse(to);
  const from_ms = from === undefined ? to_ms - HISTORY_MS : Date.parse(from);
  const step_ms = step ?? Math.max(1000, Math.ceil((to_ms - from_ms) / HISTORY_POINTS));
  if (!(from_ms < to_ms)) {
    throw new PsmaError("usage/period", "Cannot read the history: from is not before to");
  }
  if (step_ms <= 0 || (to_ms - from_ms) / step_ms > HISTORY_POINTS_MAX) {
    throw new PsmaError(
      "usage/step",
      `Cannot read the history: the step gives more than ${HISTORY_POINTS_MAX} points`,
    );
  }
  return { metric, from_ms, to_ms, step_ms };
}

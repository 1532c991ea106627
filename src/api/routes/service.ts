/** The service itself: health, readiness, metrics, status. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { RouteContext } from "../context.ts";
import { encodeMetrics, EXPOSITION_TYPE } from "../exposition.ts";
import { OperationSchema, StatusSchema } from "../schemas.ts";
import { json, problem } from "./describe.ts";

const Health = z.object({ ok: z.boolean() }).openapi("Health");
const Readiness = z.object({ ready: z.boolean(), not_ready: z.array(z.string()).readonly() })
  .openapi("Readiness");

export function addServiceRoutes(app: OpenAPIHono, { agent }: RouteContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/healthz",
      summary: "The process answers",
      responses: { 200: json(Health, "It does") },
    }),
    (context) => context.json({ ok: true }, 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/readyz",
      summary: "Every configured volume is served",
      responses: { 200: json(Readiness, "Ready"), 503: json(Readiness, "Not ready, and why") },
    }),
    async (context) => {
      const { ready, not_ready } = await agent.status();
      return context.json({ ready, not_ready }, ready ? 200 : 503);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/metrics",
      summary: "Metrics in Prometheus's text format",
      responses: {
        200: { description: "Metrics", content: { "text/plain": { schema: z.string() } } },
      },
    }),
    async (context) =>
      context.text(encodeMetrics(await agent.metrics()), 200, { "content-type": EXPOSITION_TYPE }),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/status",
      summary: "The agent and its volumes",
      responses: { 200: json(StatusSchema, "Status") },
    }),
    async (context) => context.json(await agent.status(), 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/operations/{id}",
      summary: "How long work goes",
      request: { params: z.object({ id: z.string() }) },
      responses: { 200: json(OperationSchema, "The operation"), 404: problem },
    }),
    (context) => context.json(agent.operation(context.req.valid("param").id), 200),
  );
}

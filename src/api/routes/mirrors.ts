/** A volume's mirror. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { PsmaError } from "../../core/mod.ts";
import type { RouteContext } from "../context.ts";
import { MirrorSchema, OperationSchema, SizeSchema, VolumeParameter } from "../schemas.ts";
import { body, guarded, json, problem } from "./describe.ts";
import { locationOf, withoutUndefined } from "./volumes.ts";

export function addMirrorRoutes(app: OpenAPIHono, { agent }: RouteContext): void {
  const params = VolumeParameter;
  const faults = { 400: problem, 401: problem, 404: problem, 409: problem };
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes/{volume}/mirror",
      summary: "How the mirror stands",
      request: { params },
      responses: { 200: json(MirrorSchema, "The mirror"), 404: problem },
    }),
    async (context) => {
      const { volume } = context.req.valid("param");
      const mirror = await agent.mirror(volume);
      if (mirror !== null) return context.json(mirror, 200);
      throw new PsmaError("not-found/mirror", `Cannot show the mirror of ${volume}: it has none`, {
        hint: `psma mirror start ${volume}`,
      });
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/mirror/start",
      summary: "Have a target made and fill it",
      security: guarded,
      request: { params, body: body(SizeSchema) },
      responses: { 202: json(OperationSchema, "Begun"), ...faults },
    }),
    async (context) => {
      const size = withoutUndefined(context.req.valid("json"));
      const operation = await agent.startMirror(context.req.valid("param").volume, size);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  const verbs = [["pause", "pauseMirror"], ["resume", "resumeMirror"]] as const;
  for (const [verb, method] of verbs) {
    app.openapi(
      createRoute({
        method: "post",
        path: `/v1/volumes/{volume}/mirror/${verb}`,
        summary: verb === "pause" ? "Stop copying for now" : "Go on copying",
        security: guarded,
        request: { params },
        responses: { 200: json(MirrorSchema, "The mirror"), ...faults },
      }),
      async (context) => context.json(await agent[method](context.req.valid("param").volume), 200),
    );
  }
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/mirror/cancel",
      summary: "Give the mirror and its target up",
      security: guarded,
      request: { params },
      responses: { 200: json(z.object({ cancelled: z.literal(true) }), "Given up"), ...faults },
    }),
    async (context) => {
      await agent.cancelMirror(context.req.valid("param").volume);
      return context.json({ cancelled: true as const }, 200);
    },
  );
}

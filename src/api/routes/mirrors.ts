/** A volume's mirror. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { PsmaError } from "../../core/mod.ts";
import type { RouteContext } from "../context.ts";
import {
  MirrorSchema,
  OperationSchema,
  ScaleOrderSchema,
  StartVerifySchema,
  VerifySchema,
  VolumeParameter,
} from "../schemas.ts";
import { body, guarded, json, problem } from "./describe.ts";
import { locationOf, withoutUndefined } from "./volumes.ts";

const params = VolumeParameter;
const faults = { 400: problem, 401: problem, 404: problem, 409: problem };

export function addMirrorRoutes(app: OpenAPIHono, { agent }: RouteContext): void {
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
      request: { params, body: body(ScaleOrderSchema) },
      responses: { 202: json(OperationSchema, "Begun"), ...faults },
    }),
    async (context) => {
      const order = withoutUndefined(context.req.valid("json"));
      const operation = await agent.startMirror(context.req.valid("param").volume, order);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  addVerifyRoutes(app, agent);
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

function addVerifyRoutes(app: OpenAPIHono, agent: RouteContext["agent"]): void {
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/mirror/verify",
      summary: "Compare both sides of the mirror while the volume is in use",
      security: guarded,
      request: { params, body: body(StartVerifySchema) },
      responses: { 202: json(OperationSchema, "Begun; its result is a Verify"), ...faults },
    }),
    async (context) => {
      const options = withoutUndefined(context.req.valid("json"));
      const operation = await agent.verifyMirror(context.req.valid("param").volume, options);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/mirror/verify/stop",
      summary: "Stop comparing; it can be gone on with",
      security: guarded,
      request: { params },
      responses: { 200: json(VerifySchema, "How far it came"), ...faults },
    }),
    async (context) => context.json(await agent.stopVerify(context.req.valid("param").volume), 200),
  );
}

/** Volumes: what they are, and what an operator does to them. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Agent, Operation } from "../../agent/mod.ts";
import type { RouteContext } from "../context.ts";
import {
  CreateVolumeSchema,
  DetachSchema,
  OperationSchema,
  RollbackSchema,
  ScaleOrderSchema,
  VolumeParameter,
  VolumeSchema,
  WishSchema,
} from "../schemas.ts";
import { body, guarded, json, problem } from "./describe.ts";

const List = z.object({ volumes: z.array(VolumeSchema).readonly() }).openapi("Volumes");

export function addVolumeRoutes(app: OpenAPIHono, { agent }: RouteContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes",
      summary: "All volumes",
      responses: { 200: json(List, "The volumes") },
    }),
    async (context) => context.json({ volumes: (await agent.status()).volumes }, 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes",
      summary: "Make a volume",
      security: guarded,
      request: { body: body(CreateVolumeSchema) },
      responses: {
        201: json(VolumeSchema, "The volume"),
        400: problem,
        401: problem,
        409: problem,
      },
    }),
    async (context) => {
      const { name, size_bytes, ...rest } = context.req.valid("json");
      const volume = await agent.createVolume({ name, size_bytes, ...withoutUndefined(rest) });
      context.header("location", `/v1/volumes/${volume.name}`);
      return context.json(volume, 201);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/volumes/{volume}",
      summary: "One volume",
      request: { params: VolumeParameter },
      responses: { 200: json(VolumeSchema, "The volume"), 404: problem },
    }),
    async (context) => context.json(await agent.volume(context.req.valid("param").volume), 200),
  );
  app.openapi(
    createRoute({
      method: "delete",
      path: "/v1/volumes/{volume}",
      summary: "Delete a detached volume and its bytes",
      security: guarded,
      request: { params: VolumeParameter },
      responses: { 204: { description: "Deleted" }, 401: problem, 404: problem, 409: problem },
    }),
    async (context) => {
      await agent.deleteVolume(context.req.valid("param").volume);
      return context.body(null, 204);
    },
  );
  addServing(app, agent);
  addOperations(app, agent);
}

function addServing(app: OpenAPIHono, agent: Agent): void {
  const responses = {
    200: json(VolumeSchema, "The volume"),
    401: problem,
    404: problem,
    409: problem,
  };
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/attach",
      summary: "Serve the volume",
      security: guarded,
      request: { params: VolumeParameter },
      responses,
    }),
    async (context) => context.json(await agent.attach(context.req.valid("param").volume), 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/detach",
      summary: "Stop serving the volume; with force, cut off who uses it",
      security: guarded,
      request: { params: VolumeParameter, body: { ...body(DetachSchema), required: false } },
      responses: { ...responses, 400: problem },
    }),
    async (context) => {
      const options = withoutUndefined(context.req.valid("json"));
      return context.json(await agent.detach(context.req.valid("param").volume, options), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/claim",
      summary: "Take the volume back from another agent that holds it, and cut that one off",
      security: guarded,
      request: { params: VolumeParameter },
      responses,
    }),
    async (context) => context.json(await agent.claim(context.req.valid("param").volume), 200),
  );
}

/** Long work: the answer is 202 with an operation to ask for. */
function addOperations(app: OpenAPIHono, agent: Agent): void {
  const answers = {
    202: json(OperationSchema, "Begun; ask the Location for the outcome"),
    400: problem,
    401: problem,
    404: problem,
    409: problem,
  };
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/scale",
      summary: "Mirror where needed, switch, grow",
      security: guarded,
      request: { params: VolumeParameter, body: body(ScaleOrderSchema) },
      responses: answers,
    }),
    async (context) => {
      const order = withoutUndefined(context.req.valid("json"));
      const operation = await agent.scale(context.req.valid("param").volume, order);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/rollback",
      summary:
        "Go back to the backup; one that is frozen only if what was written since may be lost",
      security: guarded,
      request: { params: VolumeParameter, body: { ...body(RollbackSchema), required: false } },
      responses: answers,
    }),
    async (context) => {
      const options = withoutUndefined(context.req.valid("json"));
      const operation = await agent.rollback(context.req.valid("param").volume, options);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/switch",
      summary: "Cut over to the mirror that is there, and grow",
      security: guarded,
      request: { params: VolumeParameter, body: { ...body(WishSchema), required: false } },
      responses: answers,
    }),
    async (context) => {
      const wish = withoutUndefined(context.req.valid("json"));
      const operation = await agent.switchVolume(context.req.valid("param").volume, wish);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/v1/volumes/{volume}/retire",
      summary: "Delete the backup",
      security: guarded,
      request: { params: VolumeParameter },
      responses: answers,
    }),
    async (context) => {
      const operation = await agent.retire(context.req.valid("param").volume);
      context.header("location", locationOf(operation));
      return context.json(operation, 202);
    },
  );
}

export function locationOf({ id }: Operation): string {
  return `/v1/operations/${id}`;
}

/** What is there as given: optional fields that were left out stay left out. */
export function withoutUndefined<T extends object>(
  record: T,
): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== undefined),
  ) as { [Key in keyof T]: Exclude<T[Key], undefined> };
}

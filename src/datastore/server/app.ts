/** The store's HTTP interface: routes bound to the catalogue. No socket in here, so tests need none. */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { carriesToken, type Log, problemResponse, PsmaError } from "../../core/mod.ts";
import { PROTOCOL_VERSION } from "../wire.ts";
import type { Catalogue } from "./catalogue.ts";
import { StoreMetrics } from "./metrics.ts";
import { problemHandler, refuseInvalid } from "./problems.ts";
import * as routes from "./routes.ts";

/** The longest request is 1,024 extents; this is four times that. */
const MAX_BODY_BYTES = 262_144;
const BODIES: ReadonlySet<string> = new Set(["POST", "PATCH", "PUT"]);
const READ_ONLY: ReadonlySet<string> = new Set(["GET", "HEAD"]);

export interface AppOptions {
  readonly catalogue: Catalogue;
  readonly token: string;
  /** Why the store cannot serve now; undefined when it can. */
  readonly notReady: () => string | undefined;
  readonly log: Log;
}

export type StoreApp = OpenAPIHono;

export function createApp(options: AppOptions): StoreApp {
  const { catalogue, log } = options;
  const metrics = new StoreMetrics(catalogue);
  const app = new OpenAPIHono({
    defaultHook: (result) => {
      if (!result.success) refuseInvalid(result.error);
    },
  });
  app.onError(problemHandler(log));
  app.notFound((c) =>
    problemResponse(
      new PsmaError("not-found/route", `Cannot ${c.req.method} ${c.req.path}: no such route`),
    )
  );
  app.use(metrics.count(), requireToken(options.token), limitBody());
  addVolumeRoutes(app, catalogue, metrics);
  addMirrorRoutes(app, catalogue);
  addServiceRoutes(app, options, metrics);
  return app;
}

function addVolumeRoutes(app: StoreApp, catalogue: Catalogue, metrics: StoreMetrics) {
  app.openapi(routes.listVolumes, async (c) => c.json({ volumes: await catalogue.list() }, 200));
  app.openapi(routes.createVolume, async (c) => {
    const key = c.req.valid("header")["idempotency-key"];
    const spec = { ...c.req.valid("json"), ...(key === undefined ? {} : { idempotency_key: key }) };
    return c.json(await catalogue.createVolume(spec), 201);
  });
  app.openapi(
    routes.showVolume,
    async (c) => c.json(await catalogue.volume(c.req.valid("param").id), 200),
  );
  app.openapi(routes.resizeVolume, async (c) => {
    const { size_bytes } = c.req.valid("json");
    return c.json(await catalogue.resize(c.req.valid("param").id, size_bytes), 200);
  });
  app.openapi(routes.deleteVolume, async (c) => {
    await catalogue.deleteVolume(c.req.valid("param").id);
    return c.body(null, 204);
  });
  app.openapi(routes.digestVolume, async (c) => {
    const { extents } = c.req.valid("json");
    const answer = await catalogue.digests(c.req.valid("param").id, extents);
    metrics.addDigests(extents.length);
    return c.json(answer, 200);
  });
  app.openapi(routes.promoteVolume, async (c) => {
    const { epoch, claimant } = c.req.valid("json");
    return c.json(await catalogue.promote(c.req.valid("param").id, epoch, claimant), 200);
  });
  app.openapi(routes.showCapacity, async (c) => c.json(await catalogue.capacity(), 200));
}

function addMirrorRoutes(app: StoreApp, catalogue: Catalogue) {
  app.openapi(routes.requestMirror, async (c) => {
    const { mode: _push, ...request } = c.req.valid("json");
    const idempotency_key = c.req.valid("header")["idempotency-key"];
    return c.json(await catalogue.requestMirror({ ...request, idempotency_key }), 201);
  });
  app.openapi(
    routes.showMirrorRequest,
    async (c) => c.json(await catalogue.mirrorRequest(c.req.valid("param").id), 200),
  );
  app.openapi(routes.cancelMirrorRequest, async (c) => {
    await catalogue.cancelMirror(c.req.valid("param").id);
    return c.body(null, 204);
  });
}

function addServiceRoutes(app: StoreApp, { notReady }: AppOptions, metrics: StoreMetrics) {
  app.get("/healthz", (c) => c.text("ok\n"));
  app.get("/readyz", (c) => {
    const reason = notReady();
    return reason === undefined ? c.text("ready\n") : c.text(`not ready: ${reason}\n`, 503);
  });
  app.get(
    "/metrics",
    async (c) => c.body(await metrics.text(), 200, { "content-type": "text/plain; version=0.0.4" }),
  );
  app.openAPIRegistry.registerComponent("securitySchemes", routes.BEARER, {
    type: "http",
    scheme: "bearer",
  });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title: "PSMA data store",
      version: String(PROTOCOL_VERSION),
      description: "Volumes, mirror requests, digests and fencing; bytes travel by NBD.",
    },
  });
}

/** Everything but reading needs the token; before the body is read, and before the route is looked up. */
function requireToken(token: string): MiddlewareHandler {
  return async (c, next) => {
    const open = READ_ONLY.has(c.req.method);
    if (!open && !carriesToken(c.req.header("authorization"), token)) {
      throw new PsmaError(
        "auth/token",
        `Cannot ${c.req.method} ${c.req.path}: the bearer token is missing or wrong`,
        { hint: "Send `Authorization: Bearer` with the token of the store's token file." },
      );
    }
    await next();
  };
}

/**
 * A body says its length first, and Deno.serve holds it to that: so nothing is read that is refused. What
 * carries no body by its method is not read at all.
 */
function limitBody(): MiddlewareHandler {
  return async (c, next) => {
    if (BODIES.has(c.req.method)) {
      const length = Number(c.req.header("content-length") ?? NaN);
      if (!(length >= 0)) {
        throw new PsmaError("usage/length", "Cannot read the request: its length is not given", {
          hint: "Send Content-Length, not a chunked body.",
        });
      }
      if (length > MAX_BODY_BYTES) {
        throw new PsmaError(
          "usage/body-size",
          `Cannot read the request: it is longer than ${MAX_BODY_BYTES} bytes`,
        );
      }
    }
    await next();
  };
}

/** The HTTP API as one function from request to response: no socket, no thread, no state of its own. */
import { bearer, sameMachine, smallBody } from "./guard.ts";
import { newRouter, type RouteContext } from "./context.ts";
import { HTTPException } from "hono/http-exception";
import { type Log, logFailure, problemResponse, PsmaError } from "../core/mod.ts";
import { addEventRoutes } from "./routes/events.ts";
import { addForesightRoutes } from "./routes/foresight.ts";
import { addMirrorRoutes } from "./routes/mirrors.ts";
import { addServiceRoutes } from "./routes/service.ts";
import { addVolumeRoutes } from "./routes/volumes.ts";

export interface ApiOptions extends RouteContext {
  readonly token: string;
  readonly version: string;
  readonly log: Log;
  /** Checks that a request was meant for this machine. Off on a Unix socket, where no browser gets. */
  readonly check_host: boolean;
}

export type Api = (request: Request) => Response | Promise<Response>;

/** All routes behind their guards. Faults leave as problem+json; the answer never rejects. */
export function createApi(options: ApiOptions): Api {
  const app = newRouter();
  app.onError((thrown, context) => {
    const error = thrown instanceof HTTPException
      ? new PsmaError("usage/request", `Cannot read the request: ${thrown.message}`)
      : thrown;
    logFailure(options.log, error, context.req);
    return problemResponse(error);
  });
  app.notFound((context) =>
    problemResponse(
      new PsmaError(
        "not-found/route",
        `Cannot ${context.req.method} ${context.req.path}: there is no such route`,
        { hint: "GET /openapi.json lists them." },
      ),
    )
  );
  if (options.check_host) app.use(sameMachine);
  app.use(bearer(options.token));
  app.use(smallBody);
  addServiceRoutes(app, options);
  addVolumeRoutes(app, options);
  addMirrorRoutes(app, options);
  addForesightRoutes(app, options);
  addEventRoutes(app, options);
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
  });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: { title: "PSMA agent", version: options.version },
  });
  return (request) => app.fetch(request);
}

/**
 * What happened: as a list, or live as server-sent events
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html). A client that comes back with
 * Last-Event-ID gets what it missed, as far as the agent still has it. A client that reads too slowly is
 * cut off rather than remembered for: it comes back the same way.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Agent, AgentEvent } from "../../agent/mod.ts";
import type { RouteContext } from "../context.ts";
import { EventSchema, EventsQuery } from "../schemas.ts";
import { problem } from "./describe.ts";

const LIST_LIMIT = 100;
const BACKLOG_LIMIT = 1000;
const WAITING_EVENTS_MAX = 2000;
const KEEP_ALIVE_MS = 15_000;

const List = z.object({ events: z.array(EventSchema).readonly() }).openapi("Events");

export function addEventRoutes(app: OpenAPIHono, routes: RouteContext): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/v1/events",
      summary: "What happened, oldest first; live with Accept: text/event-stream",
      request: {
        query: EventsQuery,
        headers: z.object({ "last-event-id": z.string().optional() }),
      },
      responses: {
        200: {
          description: "Events",
          content: {
            "application/json": { schema: List },
            "text/event-stream": { schema: z.string() },
          },
        },
        400: problem,
      },
    }),
    (context) => {
      const { after, limit = LIST_LIMIT, volume } = context.req.valid("query");
      const only = volume === undefined ? {} : { volume };
      if (!(context.req.header("accept") ?? "").includes("text/event-stream")) {
        const from = after === undefined ? {} : { after };
        return context.json({ events: routes.agent.events({ ...from, limit, ...only }) }, 200);
      }
      const last = Number(context.req.header("last-event-id") ?? after ?? NaN);
      const from = Number.isSafeInteger(last) ? last : newestId(routes.agent);
      return new Response(liveEvents(routes, { after: from, ...only }), {
        headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
      });
    },
  );
}

function newestId(agent: Agent): number {
  return agent.events({}).at(-1)?.id ?? 0;
}

interface Live {
  readonly after: number;
  readonly volume?: string;
}

/** First what came after `after`, then each new event, until either side ends it. */
function liveEvents(
  { agent, clock, closing }: RouteContext,
  { after, volume }: Live,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const ended = new AbortController();
  const signal = AbortSignal.any([ended.signal, closing]);
  const only = volume === undefined ? {} : { volume };
  let last = after;
  let cancelled = false;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      const write = (text: string) => {
        if (!signal.aborted) controller.enqueue(encoder.encode(text));
        if ((controller.desiredSize ?? 0) <= 0) ended.abort();
      };
      const send = (event: AgentEvent) => {
        if (event.id <= last || (volume !== undefined && event.volume !== volume)) return;
        last = event.id;
        write(encodeEvent(event));
      };
      // A stream that its reader cancelled is closed already, and closing it again would throw.
      signal.addEventListener("abort", () => cancelled || controller.close(), { once: true });
      write(": events follow\n\n");
      agent.events({ after, limit: BACKLOG_LIMIT, ...only }).forEach(send);
      agent.subscribe(send, signal);
      keepAlive();
      async function keepAlive() {
        while (!signal.aborted) {
          await clock.sleep(KEEP_ALIVE_MS, signal).catch(() => {});
          write(": still here\n\n");
        }
      }
    },
    cancel() {
      cancelled = true;
      ended.abort();
    },
  }, { highWaterMark: WAITING_EVENTS_MAX });
}

function encodeEvent(event: AgentEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

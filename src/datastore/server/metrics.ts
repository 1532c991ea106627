/** What a store server tells Prometheus (text format 0.0.4). */
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import type { Catalogue } from "./catalogue.ts";

export class StoreMetrics {
  readonly #catalogue: Catalogue;
  /** By ready-made label set; routes, methods and statuses are few. */
  readonly #requests = new Map<string, number>();
  #digests = 0;

  constructor(catalogue: Catalogue) {
    this.#catalogue = catalogue;
  }

  addDigests(extents: number): void {
    this.#digests += extents;
  }

  /** Counts each answer by the route's pattern, never by the path: strangers choose paths. */
  count(): MiddlewareHandler {
    return async (c, next) => {
      await next();
      const labels = `method="${knownMethod(c.req.method)}",route="${
        routePath(c, -1)
      }",status="${c.res.status}"`;
      this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1);
    };
  }

  async text(): Promise<string> {
    const { total_bytes, free_bytes, allocated_bytes, promised_bytes } = await this.#catalogue
      .capacity();
    const volumes = await this.#catalogue.list();
    const nbd = await this.#catalogue.nbdStatistics();
    const filling = volumes.filter((one) => one.mirror_request?.state === "granted").length;
    return [
      ...family("psma_store_volumes", "gauge", "Volumes served.", [["", volumes.length]]),
      ...family("psma_store_volumes_unserved", "gauge", "Volumes that could not be served.", [
        ["", this.#catalogue.unserved],
      ]),
      ...family("psma_store_mirrors_filling", "gauge", "Mirrors granted and not yet promoted.", [
        ["", filling],
      ]),
      ...family("psma_store_total_bytes", "gauge", "Capacity.", [["", total_bytes]]),
      ...family("psma_store_free_bytes", "gauge", "What may still be promised.", [[
        "",
        free_bytes,
      ]]),
      ...family("psma_store_promised_bytes", "gauge", "Sum of the volumes' sizes.", [
        ["", promised_bytes],
      ]),
      ...family("psma_store_allocated_bytes", "gauge", "What the volumes take up on disk.", [
        ["", allocated_bytes],
      ]),
      ...(nbd === null ? [] : [
        ...family("psma_store_nbd_connections", "gauge", "NBD clients that are connected.", [
          ["", nbd.connected],
        ]),
        ...family(
          "psma_store_nbd_connections_total",
          "counter",
          "NBD clients, by how they fared.",
          [
            ['outcome="accepted"', nbd.accepted],
            ['outcome="turned_away"', nbd.turned_away],
            ['outcome="cut"', nbd.cut],
          ],
        ),
      ]),
      ...family("psma_store_digests_total", "counter", "Extents digested.", [["", this.#digests]]),
      ...family("psma_store_requests_total", "counter", "HTTP answers.", [...this.#requests]),
      "",
    ].join("\n");
  }
}

function family(
  name: string,
  type: "counter" | "gauge",
  help: string,
  values: readonly (readonly [labels: string, value: number])[],
): string[] {
  const lines = values.map(([labels, value]) => `${name}${labels && `{${labels}}`} ${value}`);
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines];
}

const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"]);

function knownMethod(method: string): string {
  return METHODS.has(method) ? method : "other";
}

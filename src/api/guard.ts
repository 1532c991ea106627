/** Who may ask: the Host and Origin checks for everyone, the bearer token for what changes something. */
import type { Context, MiddlewareHandler, Next } from "hono";
import { bodyLimit } from "hono/body-limit";
import { carriesToken, problemResponse, PsmaError } from "../core/mod.ts";

const BODY_BYTES_MAX = 64 * 1024;
const LOOPBACK_NAMES: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "[::1]"]);
const READING_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Refuses a browser that was led here: by a name that resolves to loopback (DNS rebinding), or from
 * another site's page. Any loopback port is fine, so that a forwarded port keeps working.
 */
export async function sameMachine(context: Context, next: Next): Promise<void> {
  const host = context.req.header("host") ?? new URL(context.req.url).host;
  if (!LOOPBACK_NAMES.has(hostnameOf(host))) {
    throw new PsmaError(
      "forbidden/host",
      `Cannot answer: "${host}" is not a name of this machine`,
      {
        hint: "Ask for 127.0.0.1 or localhost.",
      },
    );
  }
  const origin = context.req.header("origin");
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new PsmaError("forbidden/origin", `Cannot answer: the page ${origin} is another site's`);
  }
  await next();
}

/** Asks for the token on every method that may change something. */
export function bearer(token: string): MiddlewareHandler {
  return async (context, next) => {
    if (!READING_METHODS.has(context.req.method)) {
      checkToken(context.req.header("authorization"), token);
    }
    await next();
  };
}

export const smallBody: MiddlewareHandler = bodyLimit({
  maxSize: BODY_BYTES_MAX,
  onError: () =>
    problemResponse(
      new PsmaError("usage/body-size", `Cannot read the body: it is over ${BODY_BYTES_MAX} bytes`),
    ),
});

function checkToken(header: string | undefined, token: string): void {
  if (header === undefined) {
    throw new PsmaError("auth/token-missing", "Cannot do this: the request carries no token", {
      hint: "Send Authorization: Bearer with the content of the agent's token file.",
    });
  }
  if (!carriesToken(header, token)) {
    throw new PsmaError("auth/token-wrong", "Cannot do this: the token is not the agent's", {
      hint: "Send the content of the token file that the agent's configuration names.",
    });
  }
}

function hostnameOf(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "");
}

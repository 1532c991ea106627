/** How a mirror tells what an operator should know. */

export interface MirrorEventSink {
  (
    type: string,
    severity: "info" | "warning" | "error",
    message: string,
    data?: Record<string, string | number | boolean | null>,
  ): void;
}

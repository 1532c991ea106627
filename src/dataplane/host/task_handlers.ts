/** The handlers that a table of host tasks needs: one a task, from its argument to its answer. */
interface HostTask {
  readonly argument: unknown;
  readonly answer: unknown;
}

export type HostTaskHandlers<Tasks extends { [Name in keyof Tasks]: HostTask }> = {
  readonly [Name in keyof Tasks]: (
    argument: Tasks[Name]["argument"],
  ) => Promise<Tasks[Name]["answer"]>;
};

/** A run of a volume's bytes. */
export interface Range {
  readonly at: number;
  readonly length: number;
}

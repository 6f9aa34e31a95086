/** Positions: where an event stands in its tenant's order. */

/**
 * Where an event stands in its tenant's order, in the form that the relay's JSON has: an
 * offset is the text of an integer that may be larger than 2^53. It can be stored as JSON.
 */
export interface Position {
  /** Identifies one run of the tenant's log. Offsets of different epochs cannot be compared. */
  readonly epoch: string;
  /** Starts at 1 and grows; "0" is the position of an empty log. */
  readonly offset: string;
}

/** Returns true if `a` is later than `b`, or in another epoch, where nothing is known of it. */
export function isAfter(a: Position, b: Position): boolean {
  return a.epoch !== b.epoch || compareOffsets(a.offset, b.offset) > 0;
}

/** Compares two offsets of one epoch: negative, zero or positive, for `Array.sort`. */
export function compareOffsets(a: string, b: string): number {
  // The relay writes no leading zeros, so a longer text is a larger number.
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Returns the position if it is well-formed. */
export function parsePosition(value: unknown): Position | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { epoch, offset } = value as Record<string, unknown>;
  // Proto3 JSON leaves out an offset of 0.
  const text = offset === undefined ? "0" : String(offset);
  if (typeof epoch !== "string" || epoch === "" || !/^(0|[1-9][0-9]{0,19})$/.test(text)) {
    return undefined;
  }
  return { epoch, offset: text };
}

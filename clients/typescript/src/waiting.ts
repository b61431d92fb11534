import { setTimeout as sleepFor } from "node:timers/promises";

import type { TaskLogsError } from "./errors.js";

const ASKED_AT_MOST_MS = 3_600_000;
const MOST_DOUBLINGS = 30;

/**
 * The waits between attempts, in milliseconds: the n-th in a row is `first` x 2^(n-1), at most
 * `most`, less a random part up to half.
 */
export interface Waits {
  readonly first: number;
  readonly most: number;
}

export const DEFAULT_WAITS: Waits = { first: 200, most: 10_000 };

/** Counts failures in a row. */
export class Waiting {
  failures = 0;

  constructor(private readonly waits: Waits) {}

  /**
   * Count a failure and return the wait in milliseconds. If the server said how long to wait, that
   * is used, up to an hour, plus a random part up to half: clients that were told the same must not
   * return at the same moment.
   */
  next(error: TaskLogsError): number {
    this.failures += 1;
    if (error.retryAfterMs !== undefined) {
      const asked = Math.min(Math.max(error.retryAfterMs, 0), ASKED_AT_MOST_MS);
      return asked * (1 + Math.random() / 2);
    }
    const doublings = Math.min(this.failures - 1, MOST_DOUBLINGS);
    const ceiling = Math.min(this.waits.most, this.waits.first * 2 ** doublings);
    return ceiling * (0.5 + Math.random() / 2);
  }

  reset(): void {
    this.failures = 0;
  }
}

/** Wait. Throws the reason of `signal` if that is aborted first. */
export async function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (delayMs <= 0) {
    return;
  }
  try {
    await sleepFor(delayMs, undefined, { signal });
  } catch {
    signal.throwIfAborted();
  }
}

import { Code, type CallOptions as ConnectOptions } from "@connectrpc/connect";

import { parsed, type TaskLogsError } from "./errors.js";
import { linked } from "./signals.js";
import { headersOf, type Token } from "./token.js";
import { sleep, Waiting, type Waits } from "./waiting.js";

const MOST_RETRIES = 5;

interface Limits {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

type Method<Response> = (options: ConnectOptions) => Promise<Response>;

/** Makes the calls of one client: token, time-out, retries, errors. */
export class Calls {
  constructor(
    readonly token: Token | undefined,
    private readonly timeoutMs: number,
    private readonly waits: Waits,
    readonly closed: AbortSignal,
  ) {}

  get tokenMayChange(): boolean {
    return typeof this.token === "function";
  }

  /** Make a call that is not repeated, except with another token. */
  once<Response>(method: Method<Response>, limits: Limits): Promise<Response> {
    return this.#call(method, limits, () => false);
  }

  /** Make a call again where its error says so: it reads, or has the same effect twice. */
  repeatable<Response>(method: Method<Response>, limits: Limits): Promise<Response> {
    return this.#call(method, limits, (error, failures) => {
      return failures < MOST_RETRIES && (error.retry === "now" || error.retry === "after");
    });
  }

  /** Make a call again, once, if no TaskLogs server has answered. */
  repeatedIfCut<Response>(method: Method<Response>, limits: Limits): Promise<Response> {
    return this.#call(method, limits, (error, failures) => {
      return failures === 0 && error.code === Code.Unavailable && error.reason === undefined;
    });
  }

  async #call<Response>(
    method: Method<Response>,
    limits: Limits,
    mayRepeat: (error: TaskLogsError, failures: number) => boolean,
  ): Promise<Response> {
    const { signal, unlink } = linked(this.closed, limits.signal);
    try {
      return await this.#attempts(method, limits.timeoutMs ?? this.timeoutMs, signal, mayRepeat);
    } finally {
      unlink();
    }
  }

  async #attempts<Response>(
    method: Method<Response>,
    timeoutMs: number,
    signal: AbortSignal,
    mayRepeat: (error: TaskLogsError, failures: number) => boolean,
  ): Promise<Response> {
    const endsAt = timeoutMs > 0 ? performance.now() + timeoutMs : Infinity;
    const waiting = new Waiting(this.waits);
    let tokenRefused = false;
    for (;;) {
      signal.throwIfAborted();
      const headers = await headersOf(this.token);
      // A fraction would make a header that gRPC does not allow.
      const limit = Math.ceil(endsAt - performance.now());
      try {
        return await method({
          headers,
          signal,
          ...(limit === Infinity ? {} : { timeoutMs: Math.max(limit, 1) }),
        });
      } catch (thrown) {
        signal.throwIfAborted();
        const error = parsed(thrown);
        if (error.code === Code.Unauthenticated && this.tokenMayChange && !tokenRefused) {
          tokenRefused = true;
          continue;
        }
        if (!mayRepeat(error, waiting.failures)) {
          throw error;
        }
        const delay = waiting.next(error);
        // The caller learns the cause, not only that time is up.
        if (performance.now() + delay >= endsAt) {
          throw error;
        }
        await sleep(delay, signal);
      }
    }
  }
}

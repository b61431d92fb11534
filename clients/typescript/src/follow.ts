import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, type Client } from "@connectrpc/connect";

import { Assembly, WrongDelta } from "./assembly.js";
import type { Calls } from "./calls.js";
import { parsed, TaskLogsError } from "./errors.js";
import type { FollowEvent, Reconnected, Reconnecting } from "./events.js";
import {
  FollowTaskLogsRequestSchema,
  LogSource,
  type FollowTaskLogsRequest,
  type FollowTaskLogsResponse,
  type TaskLogs,
} from "./gen/task_logs_pb.js";
import type { TaskLogType } from "./gen/types_pb.js";
import { linked } from "./signals.js";
import { headersOf, TokenFailed } from "./token.js";
import { sleep, Waiting, type Waits } from "./waiting.js";

const DEFAULT_PROGRESS_INTERVAL_MS = 15_000;
/** For the network, and for a server that is late because it is overloaded. */
const SILENCE_MARGIN_MS = 10_000;
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;

/** What to follow, and from where. */
export interface FollowOptions {
  readonly signal?: AbortSignal;
  /** As for a read, for what is yielded before `caughtUp`. */
  readonly source?: LogSource;
  /** Begin with the last N entries of the current epoch; 0: none. Not together with `cursor`. */
  readonly tail?: number;
  /** Begin after an event or a read. */
  readonly cursor?: string;
  /** Only entries of these types, and only their withdrawals. */
  readonly types?: readonly TaskLogType[];
  /** Yield `progress` if nothing else came for `progressIntervalMs`. */
  readonly progress?: boolean;
  /**
   * From 1,000 to 3,600,000; undefined: 15,000. If a stream brings nothing for 10 s longer, its
   * connection counts as broken.
   */
  readonly progressIntervalMs?: number;
  /** How long the first connection is tried while there is no server: 10,000. Infinity: always. */
  readonly connectTimeoutMs?: number;
  /** How long a follow that runs tries to reconnect, from the break on: Infinity. */
  readonly reconnectTimeoutMs?: number;
  /** Called before each wait, and when the follow continues. */
  readonly onReconnect?: (state: Reconnecting | Reconnected) => void;
}

/** See TaskLogsClient.follow. */
export async function* follow(
  logs: Client<typeof TaskLogs>,
  calls: Calls,
  waits: Waits,
  task: string,
  options: FollowOptions,
): AsyncGenerator<FollowEvent, void, undefined> {
  if (options.tail !== undefined && options.cursor !== undefined) {
    throw new TypeError("give `tail` or `cursor`, not both");
  }
  const running = new Follow(logs, calls, waits, task, options);
  try {
    for (;;) {
      yield await running.next();
    }
  } finally {
    running.end();
  }
}

class Follow {
  readonly #request: FollowTaskLogsRequest;
  readonly #assembly = new Assembly();
  readonly #waiting: Waiting;
  readonly #silenceMs: number;
  readonly #signal: AbortSignal;
  readonly #unlink: () => void;
  #stream: AsyncIterator<FollowTaskLogsResponse> | undefined;
  #drop = new AbortController();
  /** How many messages the current stream has brought. */
  #messages = 0;
  /** Whether any stream has brought a message. */
  #started = false;
  /** Whether the current or next stream continues one that broke. */
  #broken = false;
  #lastError: TaskLogsError | undefined;
  #tokenRefused = false;
  #wholeEntries = false;
  #snapshotOnly = false;
  #delayMs = 0;
  #giveUpAt: number;

  constructor(
    private readonly logs: Client<typeof TaskLogs>,
    private readonly calls: Calls,
    waits: Waits,
    task: string,
    private readonly options: FollowOptions,
  ) {
    this.#request = create(FollowTaskLogsRequestSchema, {
      task,
      source: options.source ?? LogSource.UNSPECIFIED,
      cursor: options.cursor ?? "",
      types: [...(options.types ?? [])],
      deltas: true,
      compressed: true,
      ...(options.tail === undefined ? {} : { tail: options.tail }),
      ...(options.progressIntervalMs === undefined
        ? {}
        : { progressInterval: durationFromMs(options.progressIntervalMs) }),
    });
    this.#waiting = new Waiting(waits);
    this.#silenceMs =
      (options.progressIntervalMs ?? DEFAULT_PROGRESS_INTERVAL_MS) + SILENCE_MARGIN_MS;
    const { signal, unlink } = linked(calls.closed, options.signal);
    this.#signal = signal;
    this.#unlink = unlink;
    signal.addEventListener("abort", () => {
      this.#drop.abort(signal.reason);
    });
    this.#giveUpAt = performance.now() + (options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS);
  }

  async next(): Promise<FollowEvent> {
    for (;;) {
      let event: FollowEvent | undefined;
      try {
        event = this.#assembly.apply(await this.#read());
      } catch (thrown) {
        this.#dropStream();
        this.#signal.throwIfAborted();
        this.#prepareRetry(thrown);
        continue;
      }
      if (event !== undefined && (event.kind !== "progress" || this.options.progress === true)) {
        return event;
      }
    }
  }

  /** Leave the server, and the signals. */
  end(): void {
    this.#dropStream();
    this.#unlink();
  }

  #dropStream(): void {
    this.#drop.abort();
    this.#stream = undefined;
  }

  async #open(): Promise<AsyncIterator<FollowTaskLogsResponse>> {
    await sleep(this.#delayMs, this.#signal);
    const request = { ...this.#request };
    if (this.#assembly.cursor !== "") {
      delete request.tail;
      request.cursor = this.#assembly.cursor;
    }
    if (this.#wholeEntries) {
      request.deltas = request.compressed = false;
    }
    if (this.#snapshotOnly) {
      request.source = LogSource.SNAPSHOT;
    }
    const headers = await headersOf(this.calls.token);
    this.#signal.throwIfAborted();
    this.#assembly.streamOpened();
    this.#messages = 0;
    this.#drop = new AbortController();
    const signal = this.#drop.signal;
    return this.logs.followTaskLogs(request, { headers, signal })[Symbol.asyncIterator]();
  }

  async #read(): Promise<FollowTaskLogsResponse> {
    this.#stream ??= await this.#open();
    // Pings test the connection to the next proxy. This tests the way to the server, once the
    // stream has shown that there is one. Before, it is the limit of the connection.
    const limit =
      this.#messages > 0 ? this.#silenceMs : Math.max(this.#giveUpAt - performance.now(), 0);
    const drop = this.#drop;
    const silence = new AbortController();
    const timer =
      limit === Infinity
        ? undefined
        : setTimeout(() => {
            silence.abort();
            drop.abort();
          }, limit);
    try {
      const step = await this.#stream.next();
      if (step.done === true) {
        throw new TaskLogsError("the server ended the stream", Code.Unavailable);
      }
      this.#received();
      return step.value;
    } catch (thrown) {
      if (silence.signal.aborted) {
        const seconds = Math.round(limit / 1000);
        const message = `the stream brought nothing for ${seconds} s`;
        // Time is up: why the last attempt failed says more.
        const known = this.#messages === 0 ? this.#lastError : undefined;
        throw known ?? new TaskLogsError(message, Code.Unavailable);
      }
      throw thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  #received(): void {
    this.#messages += 1;
    // The first message, the status, shows that the server responds, not that it can continue.
    if (this.#messages > 1) {
      this.#waiting.reset();
      return;
    }
    this.#tokenRefused = false;
    this.#lastError = undefined;
    this.#started = true;
    this.#giveUpAt = Infinity;
    if (this.#broken) {
      this.options.onReconnect?.({ kind: "reconnected" });
    }
    this.#broken = false;
  }

  /** Decide when and how the next stream is opened. Throws if there will be none. */
  #prepareRetry(thrown: unknown): void {
    const error = this.#errorOf(thrown);
    if (!this.#mayGoOn(error)) {
      throw error;
    }
    const now = performance.now();
    if (this.#started && !this.#broken) {
      this.#giveUpAt = now + (this.options.reconnectTimeoutMs ?? Infinity);
    }
    const delayMs = this.#waiting.next(error);
    if (now + delayMs > this.#giveUpAt) {
      throw error;
    }
    // The next stream sends whole entries as they are: nothing that could fail again.
    this.#wholeEntries = thrown instanceof WrongDelta;
    // The status does not allow a new follow, but does not end a running one either.
    this.#snapshotOnly = error.reason === "TASK_STATE_CONFLICT";
    this.#broken = true;
    this.#lastError = error;
    this.#delayMs = delayMs;
    const attempt = this.#waiting.failures;
    this.options.onReconnect?.({ kind: "reconnecting", error, attempt, delayMs });
  }

  #errorOf(thrown: unknown): TaskLogsError {
    if (thrown instanceof TaskLogsError) {
      return thrown;
    }
    if (thrown instanceof WrongDelta) {
      return new TaskLogsError(thrown.message, Code.Internal, {}, thrown);
    }
    if (thrown instanceof TokenFailed) {
      // A function that fails once must not end a follow that runs.
      if (this.#started) {
        return new TaskLogsError(thrown.message, Code.Unavailable, {}, thrown);
      }
      throw thrown;
    }
    return parsed(thrown);
  }

  #mayGoOn(error: TaskLogsError): boolean {
    if (this.#started && isFromProxy(error)) {
      return true;
    }
    if (error.code === Code.Unauthenticated) {
      const asked = this.#tokenRefused;
      this.#tokenRefused = true;
      return this.calls.tokenMayChange && !asked;
    }
    const asksToWait = error.retryAfterMs !== undefined;
    if (!this.#started) {
      return error.code === Code.Unavailable || asksToWait;
    }
    switch (error.code) {
      case Code.FailedPrecondition:
        return (
          error.reason === "TASK_STATE_CONFLICT" && (!this.#snapshotOnly || this.#messages > 0)
        );
      case Code.ResourceExhausted:
        return asksToWait;
      case Code.Unavailable:
      case Code.Aborted:
      case Code.Internal:
      // The codes of streams whose server or proxy died.
      case Code.Unknown:
      case Code.Canceled:
      case Code.DeadlineExceeded:
        return true;
      default:
        return false;
    }
  }
}

/** Whether a proxy refused the stream: only the server's own word is final. */
function isFromProxy(error: TaskLogsError): boolean {
  if (error.reason !== undefined) {
    return false;
  }
  switch (error.code) {
    case Code.Unauthenticated:
    case Code.PermissionDenied:
    case Code.NotFound:
    case Code.Unimplemented:
      return true;
    default:
      return /^\w+: HTTP \d{3}$/.test(error.message);
  }
}

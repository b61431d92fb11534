import { randomUUID } from "node:crypto";

import { type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampDate } from "@bufbuild/protobuf/wkt";
import {
  createClient,
  type CallOptions as ConnectOptions,
  type Client,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { Calls } from "./calls.js";
import { entryOf, type LogEntry } from "./entry.js";
import { ClientClosed } from "./errors.js";
import type { FollowEvent } from "./events.js";
import { follow, type FollowOptions } from "./follow.js";
import { TaskLogs, LogSource, type GetTaskLogsResponse } from "./gen/task_logs_pb.js";
import { Tasks, TaskView, type CreateTaskRequestSchema } from "./gen/tasks_pb.js";
import type {
  AgentLifecycle,
  AppHealth,
  BuildTransition,
  JobStatus,
  TaskLogType,
  TaskStatus,
} from "./gen/types_pb.js";
import { taskOf, type Task } from "./task.js";
import type { Token } from "./token.js";
import { DEFAULT_WAITS, type Waits } from "./waiting.js";

const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
const PING_INTERVAL_MS = 30_000;
const PING_TIMEOUT_MS = 10_000;
const DEFAULT_TIMEOUT_MS = 30_000;

/** The settings of a client. */
export interface ClientOptions {
  /**
   * A bearer token, or a function that returns one. It is called before each call, and once more if
   * the server refused its token.
   */
  readonly token?: Token;
  /** The limit of each call with a single response, retries included: 30,000. 0: no limit. */
  readonly timeoutMs?: number;
  /** For `https`: PEM texts. `ca`: who may have signed the server's certificate. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly waits?: Waits;
  readonly interceptors?: readonly Interceptor[];
  /** A transport of your own, which `close` leaves open. `tls` has no effect then. */
  readonly transport?: Transport;
}

/** What every call accepts. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** What to read. */
export interface ReadOptions extends CallOptions {
  /** Only the live log, or only the stored one. The default is what the task's status decides. */
  readonly source?: LogSource;
  /** Only the last N entries; 0: only the status. */
  readonly tail?: number;
  /** Only entries of these types; `tail` counts these alone. */
  readonly types?: readonly TaskLogType[];
  /** An earlier conversation, numbered from 1. */
  readonly epoch?: number;
  /** Accept a log that was brought up to date at most this long ago. */
  readonly maxStalenessMs?: number;
  /** The most entries of a page; a page ends at about 1 MB in any case. */
  readonly pageSize?: number;
  /** Begin with this page: `nextPageToken` of an earlier read with the same options. */
  readonly pageToken?: string;
}

/** The result of one read: the first page, and how to read on. */
export interface TaskLog {
  /** The task's UUID. After a task is deleted, another one may get its name. */
  readonly taskId: string;
  /** True: the stored log, of `snapshotAt`. False: it was brought up to date first. */
  readonly snapshot: boolean;
  readonly snapshotAt: Date | undefined;
  readonly status: TaskStatus;
  /** The epoch of the entries, from 1; 0 if nothing was ever stored. */
  readonly epoch: number;
  readonly revision: bigint;
  /** The id of the oldest stored entry of the epoch. */
  readonly firstId: number | undefined;
  /** Follow the task from here with this cursor. */
  readonly cursor: string;
  /** The entries of the first page. It may be empty although there is a next one. */
  readonly page: readonly LogEntry[];
  /** Empty if the first page is the last. */
  readonly nextPageToken: string;
  /** Yield the entries of all pages, by id. Each page is requested when it is needed. */
  entries(): AsyncIterableIterator<LogEntry>;
  /** Return all entries, by id. */
  all(): Promise<LogEntry[]>;
}

/** Which tasks to list. */
export interface ListOptions extends CallOptions {
  readonly owner?: string;
  readonly status?: TaskStatus;
  /** Only tasks that have all of these; each is `key=value`, or `key` for any value. */
  readonly labels?: readonly string[];
  /** Whether the tasks have their prompts. */
  readonly prompts?: boolean;
  readonly pageSize?: number;
  /** Begin with this page: `nextPageToken` of an earlier one. */
  readonly pageToken?: string;
}

/**
 * A client of a TaskLogs server, for instance `http://127.0.0.1:50051`. `task` is a task's UUID or
 * its `owner/name`. Every call throws TaskLogsError, ClientClosed, or the reason of its signal.
 */
export class TaskLogsClient implements AsyncDisposable {
  readonly #tasks: Client<typeof Tasks>;
  readonly #logs: Client<typeof TaskLogs>;
  readonly #calls: Calls;
  readonly #closed = new AbortController();
  readonly #sessions: Http2SessionManager | undefined;
  readonly #waits: Waits;

  constructor(url: string, options: ClientOptions = {}) {
    let transport = options.transport;
    if (transport === undefined) {
      this.#sessions = new Http2SessionManager(
        url,
        { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS },
        { ...options.tls },
      );
      transport = createGrpcTransport({
        baseUrl: url,
        sessionManager: this.#sessions,
        readMaxBytes: MAX_MESSAGE_BYTES,
        interceptors: [...(options.interceptors ?? [])],
      });
    }
    this.#tasks = createClient(Tasks, transport);
    this.#logs = createClient(TaskLogs, transport);
    this.#waits = options.waits ?? DEFAULT_WAITS;
    this.#calls = new Calls(
      options.token,
      options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      this.#waits,
      this.#closed.signal,
    );
  }

  /** End every call and follow, and close the connection. Closing twice does nothing. */
  close(): void {
    this.#closed.abort(new ClientClosed());
    this.#sessions?.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /**
   * Read a task's log: the live log if the task runs, else the stored one. The reason of the error
   * is TASK_NOT_FOUND; TASK_STATE_CONFLICT if the task's status allows neither; AGENT_UNREACHABLE
   * or TASK_APP_ERROR if a live read failed; CURSOR_EXPIRED if the epoch was evicted.
   */
  async get(task: string, options: ReadOptions = {}): Promise<TaskLog> {
    const request = {
      task,
      source: options.source ?? LogSource.UNSPECIFIED,
      pageSize: options.pageSize ?? 0,
      types: [...(options.types ?? [])],
      ...(options.tail === undefined ? {} : { tail: options.tail }),
      ...(options.epoch === undefined ? {} : { epoch: options.epoch }),
      ...(options.maxStalenessMs === undefined
        ? {}
        : { maxStaleness: durationFromMs(options.maxStalenessMs) }),
    };
    const next = (pageToken: string): Promise<GetTaskLogsResponse> =>
      this.#calls.repeatable(
        (call: ConnectOptions) => this.#logs.getTaskLogs({ ...request, pageToken }, call),
        options,
      );
    const first = await next(options.pageToken ?? "");
    return logOf(first, next);
  }

  /**
   * Follow a task's log. It yields the status, then the stored entries, `caughtUp`, and then every
   * change as it is committed. It continues through pauses, resumes, new epochs, and restarts of
   * agent and server, until the loop over it ends, or it throws.
   *
   * An entry that changes is yielded again, whole, with the text that was appended. If it changes
   * faster than it is read, only its latest state is yielded. When its stream breaks, the follow
   * reconnects and continues: no event is missing, none is repeated. To continue in another
   * process, keep the cursor of the last event.
   */
  follow(task: string, options: FollowOptions = {}): AsyncGenerator<FollowEvent, void, undefined> {
    return follow(this.#logs, this.#calls, this.#waits, task, options);
  }

  /**
   * Create a task, and the token of its agent, which is shown only once. If the connection breaks,
   * the call is repeated once: `requestId` (a UUID; undefined: a new one) makes that safe.
   */
  async createTask(
    name: string,
    options: CallOptions &
      Omit<MessageInitShape<typeof CreateTaskRequestSchema>, "name" | "$typeName"> = {},
  ): Promise<{ task: Task; agentToken: string }> {
    const { signal, timeoutMs, ...fields } = options;
    const request = { ...fields, name, requestId: fields.requestId ?? randomUUID() };
    const response = await this.#calls.repeatedIfCut(
      (call) => this.#tasks.createTask(request, call),
      callOptions(signal, timeoutMs),
    );
    return { task: taskOf(response.task, true), agentToken: response.agentToken };
  }

  /** Return a task, with its prompt. */
  async getTask(task: string, options: CallOptions = {}): Promise<Task> {
    const found = await this.#calls.repeatable(
      (call) => this.#tasks.getTask({ task, view: TaskView.FULL }, call),
      options,
    );
    return taskOf(found, true);
  }

  /** Return one page of the tasks, newest first. */
  async listTasksPage(
    options: ListOptions = {},
  ): Promise<{ tasks: Task[]; nextPageToken: string }> {
    const prompts = options.prompts ?? false;
    const request = {
      owner: options.owner ?? "",
      labels: [...(options.labels ?? [])],
      pageSize: options.pageSize ?? 0,
      pageToken: options.pageToken ?? "",
      view: prompts ? TaskView.FULL : TaskView.BASIC,
      ...(options.status === undefined ? {} : { status: options.status }),
    };
    const page = await this.#calls.repeatable(
      (call) => this.#tasks.listTasks(request, call),
      options,
    );
    const tasks = page.tasks.map((one) => taskOf(one, prompts));
    return { tasks, nextPageToken: page.nextPageToken };
  }

  /** Yield tasks, newest first. Each page is requested when it is needed. */
  async *listTasks(options: ListOptions = {}): AsyncGenerator<Task, void, undefined> {
    let pageToken = options.pageToken ?? "";
    do {
      const page = await this.listTasksPage({ ...options, pageToken });
      yield* page.tasks;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /**
   * Change the display name, the labels (all of them are replaced), or both. With the `etag` of the
   * task as you read it, an update in between fails with the reason ETAG_MISMATCH.
   */
  async updateTask(
    task: string,
    changes: { displayName?: string; labels?: Record<string, string>; etag?: string },
    options: CallOptions = {},
  ): Promise<Task> {
    const paths = [
      ...(changes.displayName === undefined ? [] : ["display_name"]),
      ...(changes.labels === undefined ? [] : ["labels"]),
    ];
    const updated = await this.#calls.once(
      (call) => this.#tasks.updateTask({ task, ...changes, updateMask: { paths } }, call),
      options,
    );
    return taskOf(updated, true);
  }

  /** Delete a task and its log permanently; its name and its token are freed at once. */
  async deleteTask(
    task: string,
    options: CallOptions & { readonly allowMissing?: boolean } = {},
  ): Promise<void> {
    const allowMissing = options.allowMissing ?? false;
    await this.#calls.once(
      (call) => this.#tasks.deleteTask({ task, allowMissing }, call),
      options,
    );
  }

  /** Report on a workspace build, numbered from 1. Returns the task without its prompt. */
  async reportBuild(
    task: string,
    buildNumber: number,
    transition: BuildTransition,
    jobStatus: JobStatus,
    options: CallOptions = {},
  ): Promise<Task> {
    const request = { task, buildNumber, transition, jobStatus };
    const response = await this.#calls.repeatable(
      (call) => this.#tasks.reportBuild(request, call),
      options,
    );
    return taskOf(response.task, false);
  }

  /** Report on the agent or the task app of the latest build, or on both. */
  async reportAgent(
    task: string,
    buildNumber: number,
    report: { lifecycle?: AgentLifecycle; appHealth?: AppHealth },
    options: CallOptions = {},
  ): Promise<Task> {
    const request = { task, buildNumber, ...report };
    const response = await this.#calls.repeatable(
      (call) => this.#tasks.reportAgent(request, call),
      options,
    );
    return taskOf(response.task, false);
  }

  /** Replace the agent's token; the old one is invalid at once. */
  async rotateAgentToken(task: string, options: CallOptions = {}): Promise<string> {
    const response = await this.#calls.once(
      (call) => this.#tasks.rotateAgentToken({ task }, call),
      options,
    );
    return response.agentToken;
  }

  /** Return the server's version, features and types of entries. */
  async serverInfo(
    options: CallOptions = {},
  ): Promise<{ version: string; features: string[]; entryTypes: TaskLogType[] }> {
    const { version, features, entryTypes } = await this.#calls.repeatable(
      (call) => this.#logs.getServerInfo({}, call),
      options,
    );
    return { version, features, entryTypes };
  }
}

function callOptions(signal?: AbortSignal, timeoutMs?: number): CallOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

function logOf(
  first: GetTaskLogsResponse,
  next: (pageToken: string) => Promise<GetTaskLogsResponse>,
): TaskLog {
  const page = first.logs.map(entryOf);
  async function* entries(): AsyncGenerator<LogEntry, void, undefined> {
    yield* page;
    let token = first.nextPageToken;
    while (token !== "") {
      const following = await next(token);
      yield* following.logs.map(entryOf);
      token = following.nextPageToken;
    }
  }
  return {
    taskId: first.taskId,
    snapshot: first.snapshot ?? false,
    snapshotAt: first.snapshotAt === undefined ? undefined : timestampDate(first.snapshotAt),
    status: first.status,
    epoch: first.epoch,
    revision: first.revision,
    firstId: first.firstId,
    cursor: first.cursor,
    page,
    nextPageToken: first.nextPageToken,
    entries,
    all: async () => {
      const all: LogEntry[] = [];
      for await (const entry of entries()) {
        all.push(entry);
      }
      return all;
    },
  };
}

import { timestampDate } from "@bufbuild/protobuf/wkt";

import type { Task as TaskMessage } from "./gen/tasks_pb.js";
import {
  AgentLifecycle,
  AppHealth,
  BuildTransition,
  JobStatus,
  TaskStatus,
  type StatusDetail as DetailMessage,
} from "./gen/types_pb.js";

/** The facts that a status is derived from: the first layer that is not ACTIVE decides. */
export interface StatusDetail {
  /** The latest workspace build. `number` is 0 if there is none. */
  readonly build: {
    readonly number: number;
    readonly transition: BuildTransition;
    readonly jobStatus: JobStatus;
    readonly computed: TaskStatus;
  };
  /** The agent of that build. */
  readonly agent: { readonly lifecycle: AgentLifecycle; readonly computed: TaskStatus };
  /** The task app of that build. */
  readonly app: { readonly health: AppHealth; readonly computed: TaskStatus };
}

export function detailOf(message: DetailMessage | undefined): StatusDetail {
  const { build, agent, app } = message ?? {};
  const none = TaskStatus.UNSPECIFIED;
  return {
    build: {
      number: build?.number ?? 0,
      transition: build?.transition ?? BuildTransition.UNSPECIFIED,
      jobStatus: build?.jobStatus ?? JobStatus.UNSPECIFIED,
      computed: build?.computed ?? none,
    },
    agent: {
      lifecycle: agent?.lifecycle ?? AgentLifecycle.UNSPECIFIED,
      computed: agent?.computed ?? none,
    },
    app: { health: app?.health ?? AppHealth.UNSPECIFIED, computed: app?.computed ?? none },
  };
}

/** One unit of agent work. */
export interface Task {
  /** A UUID. */
  readonly id: string;
  readonly owner: string;
  readonly name: string;
  /** `owner/name`, which every call accepts as the task. */
  readonly fullName: string;
  readonly displayName: string;
  /** undefined if the call did not ask for it. */
  readonly prompt: string | undefined;
  readonly standalone: boolean;
  readonly createdAt: Date;
  readonly status: TaskStatus;
  readonly statusDetail: StatusDetail;
  readonly log: {
    /** 0 if nothing was ever stored. */
    readonly epoch: number;
    /** The number of stored entries of the current epoch. */
    readonly entries: number;
    readonly revision: bigint;
    /** The size of the stored content of all epochs. */
    readonly bytes: number;
    /** When the stored log was up to date. */
    readonly snapshotAt: Date | undefined;
  };
  readonly agentConnected: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** Names this state of `displayName` and `labels`, for `updateTask`. */
  readonly etag: string;
}

export function taskOf(message: TaskMessage | undefined, hasPrompt: boolean): Task {
  if (message === undefined) {
    throw new TypeError("the response has no task");
  }
  const snapshotAt = message.log?.snapshotAt;
  return {
    id: message.id,
    owner: message.owner,
    name: message.name,
    fullName: `${message.owner}/${message.name}`,
    displayName: message.displayName,
    prompt: hasPrompt ? message.prompt : undefined,
    standalone: message.standalone,
    createdAt: message.createdAt === undefined ? new Date(0) : timestampDate(message.createdAt),
    status: message.status,
    statusDetail: detailOf(message.statusDetail),
    log: {
      epoch: message.log?.epoch ?? 0,
      entries: message.log?.entries ?? 0,
      revision: message.log?.revision ?? 0n,
      bytes: Number(message.log?.bytes ?? 0n),
      snapshotAt: snapshotAt === undefined ? undefined : timestampDate(snapshotAt),
    },
    agentConnected: message.agentConnected ?? false,
    labels: message.labels,
    etag: message.etag,
  };
}

/**
 * The client of TaskLogs, the service that keeps the conversation logs of the tasks of AI agents.
 *
 * @packageDocumentation
 */
export { Code } from "@connectrpc/connect";

export {
  TaskLogsClient,
  type CallOptions,
  type ClientOptions,
  type ListOptions,
  type ReadOptions,
  type TaskLog,
} from "./client.js";
export type { LogEntry } from "./entry.js";
export {
  AgentLifecycle,
  AppHealth,
  BuildTransition,
  JobStatus,
  LogSource,
  TaskLogType,
  TaskStatus,
} from "./enums.js";
export {
  ClientClosed,
  TaskLogsError,
  type FieldViolation,
  type QuotaViolation,
  type Reason,
} from "./errors.js";
export type {
  CaughtUp,
  EntriesChanged,
  EntryChange,
  EntryWithdrawn,
  EpochStarted,
  FollowEvent,
  Progress,
  Reconnected,
  Reconnecting,
  StatusChanged,
} from "./events.js";
export type { FollowOptions } from "./follow.js";
export type { KnownReason, Retry } from "./reasons.js";
export type { StatusDetail, Task } from "./task.js";
export { TokenFailed, type Token } from "./token.js";
export type { Waits } from "./waiting.js";

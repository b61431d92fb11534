import { timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";

import type { TaskLogEntry, TaskLogType } from "./gen/types_pb.js";

/** One message of a task's conversation. */
export interface LogEntry {
  /** Ids increase within an epoch, from 0, with gaps. */
  readonly id: number;
  readonly type: TaskLogType;
  readonly content: string;
  /** When it was written or last changed, by the task app; to the millisecond. */
  readonly time: Date;
  /** The same in nanoseconds since 1970. */
  readonly timeNs: bigint;
  /** The task's revision at which the entry last changed. */
  readonly revision: bigint;
  /** Bytes that were removed from the front of `content`, because it was longer than 1 MiB. */
  readonly droppedBytes: number;
  /** The message's id in the source that the agent reads; empty if it has no such ids. */
  readonly sourceId: string;
  /** The tool's name, for TOOL_CALL and TOOL_RESULT. */
  readonly name: string;
  /** Joins a tool's result to its call: both have the same. */
  readonly callId: string;
}

export function entryOf(message: TaskLogEntry): LogEntry {
  return {
    id: message.id ?? 0,
    type: message.type,
    content: message.content,
    ...timeOf(message.time),
    revision: message.revision,
    droppedBytes: Number(message.droppedBytes),
    sourceId: message.sourceId,
    name: message.name,
    callId: message.callId,
  };
}

export function timeOf(time: Timestamp | undefined): { time: Date; timeNs: bigint } {
  return time === undefined
    ? { time: new Date(0), timeNs: 0n }
    : { time: timestampDate(time), timeNs: time.seconds * 1_000_000_000n + BigInt(time.nanos) };
}

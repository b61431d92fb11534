import type { LogEntry } from "./entry.js";
import type { TaskLogsError } from "./errors.js";
import type { TaskStatus } from "./gen/types_pb.js";
import type { StatusDetail } from "./task.js";

interface AnyEvent {
  /** Continues after this event: the option `cursor` of a follow. */
  readonly cursor: string;
}

/** The task's status: the first event of a follow, and one for each change. */
export interface StatusChanged extends AnyEvent {
  readonly kind: "status";
  readonly status: TaskStatus;
  readonly detail: StatusDetail;
  /** The task's UUID in the first event, else undefined. Names are reused, UUIDs are not. */
  readonly taskId: string | undefined;
}

/** An entry that is new to this follow, or has changed since the follow yielded it. */
export interface EntryChange {
  /** Always the whole entry in its new state. */
  readonly entry: LogEntry;
  /** The revision of the entry that the follow yielded before; undefined: it is new. */
  readonly replaces: bigint | undefined;
  /** How much of the content that was yielded before is unchanged, as an index into it. */
  readonly kept: number;
  /**
   * The text to append to the content that was yielded before; for a new entry, all of its content.
   * undefined: some of the content that was yielded before has changed.
   */
  readonly appended: string | undefined;
}

/**
 * Entries that are new or have changed, in the order of their revisions. The same id again within an
 * epoch replaces what was yielded before.
 */
export interface EntriesChanged extends AnyEvent {
  readonly kind: "entries";
  readonly epoch: number;
  readonly changes: readonly EntryChange[];
}

/** The entry is no longer part of the conversation. */
export interface EntryWithdrawn extends AnyEvent {
  readonly kind: "withdrawn";
  readonly epoch: number;
  readonly id: number;
  readonly revision: bigint;
}

/** A new conversation begins, with ids from 0. Earlier epochs can still be read. */
export interface EpochStarted extends AnyEvent {
  readonly kind: "epoch";
  readonly epoch: number;
  readonly revision: bigint;
}

/** All entries that existed when the follow began have been yielded. Once per follow. */
export interface CaughtUp extends AnyEvent {
  readonly kind: "caughtUp";
}

/** Nothing is new: everything up to the cursor has been yielded. Only if requested. */
export interface Progress extends AnyEvent {
  readonly kind: "progress";
}

/** What a follow yields. Later versions may add kinds: a `switch` must ignore those. */
export type FollowEvent =
  | StatusChanged
  | EntriesChanged
  | EntryWithdrawn
  | EpochStarted
  | CaughtUp
  | Progress;

/** The stream of a follow broke: it reconnects after `delayMs`. */
export interface Reconnecting {
  readonly kind: "reconnecting";
  readonly error: TaskLogsError;
  /** The number of failures in a row, from 1. */
  readonly attempt: number;
  readonly delayMs: number;
}

/** The follow continues where it was. */
export interface Reconnected {
  readonly kind: "reconnected";
}

import { inflateSync } from "node:zlib";

import { equals, fromBinary } from "@bufbuild/protobuf";

import { Content, DeltaError } from "./delta.js";
import { entryOf, timeOf, type LogEntry } from "./entry.js";
import type { EntriesChanged, EntryChange, FollowEvent } from "./events.js";
import {
  FollowTaskLogsResponseSchema,
  StatusChangedSchema,
  type EntryDelta,
  type FollowTaskLogsResponse,
  type StatusChanged,
} from "./gen/task_logs_pb.js";
import type { TaskLogEntry } from "./gen/types_pb.js";
import { detailOf } from "./task.js";

const MAX_EXPANDED_BYTES = 256 * 1024;

/**
 * A delta does not fit what its stream sent, or a compressed message cannot be expanded. So the
 * stream cannot be trusted.
 */
export class WrongDelta extends Error {}

/** The last entry that was yielded: the only one that may still change. */
interface Tail {
  readonly epoch: number;
  entry: LogEntry;
  content: Content;
  /** Whether the current stream has sent it, so that its deltas can be applied to it. */
  sentByStream: boolean;
}

/**
 * Turns the messages of a follow's streams into events: it applies deltas, and leaves out what it
 * has yielded before, over all streams.
 */
export class Assembly {
  /** That of the last message; empty before the first. */
  cursor = "";
  #status: StatusChanged | undefined;
  #caughtUp = false;
  // Revisions only increase, so this number is enough to recognize a repeat.
  #revision = 0n;
  #tail: Tail | undefined;

  /** A new stream begins. Its deltas do not build on what an earlier one sent. */
  streamOpened(): void {
    if (this.#tail !== undefined) {
      this.#tail.sentByStream = false;
    }
  }

  /** Return the event of `message`, if it has something new. Throws WrongDelta. */
  apply(message: FollowTaskLogsResponse): FollowEvent | undefined {
    const cursor = this.#cursorOf(message);
    const event = this.#event(expanded(message), cursor);
    this.cursor = cursor;
    return event;
  }

  #cursorOf(message: FollowTaskLogsResponse): string {
    if (message.cursor !== "") {
      return message.cursor;
    }
    const end = message.cursorEnd;
    if (end.length > this.cursor.length) {
      throw new WrongDelta("a cursor is only an end, and none came before");
    }
    return this.cursor.slice(0, this.cursor.length - end.length) + end;
  }

  #event(message: FollowTaskLogsResponse, cursor: string): FollowEvent | undefined {
    const event = message.event;
    switch (event.case) {
      case "status":
        return this.#statusChanged(event.value, cursor);
      case "entries": {
        const { epoch, logs } = event.value;
        const changes = logs.flatMap((entry) => this.#whole(epoch, entry) ?? []);
        return changes.length === 0 ? undefined : { kind: "entries", cursor, epoch, changes };
      }
      case "delta":
        return this.#delta(event.value, cursor);
      case "entryWithdrawn": {
        const { epoch, id, revision } = event.value;
        if (!this.#isNew(revision)) {
          return undefined;
        }
        this.#tail = undefined;
        return { kind: "withdrawn", cursor, epoch, id: id ?? 0, revision };
      }
      case "epochStarted": {
        const { epoch, revision } = event.value;
        if (!this.#isNew(revision)) {
          return undefined;
        }
        this.#tail = undefined;
        return { kind: "epoch", cursor, epoch, revision };
      }
      case "caughtUp":
        if (this.#caughtUp) {
          return undefined;
        }
        this.#caughtUp = true;
        return { kind: "caughtUp", cursor };
      case "progress":
        return { kind: "progress", cursor };
      default:
        // An event of a newer server. Its cursor is used all the same.
        return undefined;
    }
  }

  #statusChanged(message: StatusChanged, cursor: string): FollowEvent | undefined {
    const taskId = message.taskId === "" ? undefined : message.taskId;
    const compared = { ...message, taskId: "" };
    if (this.#status !== undefined && equals(StatusChangedSchema, this.#status, compared)) {
      return undefined;
    }
    this.#status = compared;
    const detail = detailOf(message.statusDetail);
    return { kind: "status", cursor, status: message.status, detail, taskId };
  }

  #whole(epoch: number, message: TaskLogEntry): EntryChange | undefined {
    const before = this.#tailWith(epoch, message.id ?? 0);
    if (!this.#isNew(message.revision)) {
      // It is a repeat, but the next delta may build on it.
      if (
        before?.entry.revision === message.revision &&
        before.entry.content === message.content
      ) {
        before.sentByStream = true;
      }
      return undefined;
    }
    const entry = entryOf(message);
    this.#tail = { epoch, entry, content: Content.of(entry.content), sentByStream: true };
    return before === undefined
      ? { entry, replaces: undefined, kept: 0, appended: entry.content }
      : changeOf(before.entry, before.content.bytes, entry, this.#tail.content.bytes);
  }

  #delta(message: EntryDelta, cursor: string): EntriesChanged | undefined {
    const { epoch, revision } = message;
    const id = message.id ?? 0;
    if (revision <= this.#revision) {
      return undefined;
    }
    const tail = this.#tailWith(epoch, id);
    if (tail?.sentByStream !== true || tail.entry.revision !== message.baseRevision) {
      throw new WrongDelta(
        `a delta for entry ${id} of epoch ${epoch} builds on revision ` +
          `${message.baseRevision.toString()}, which is not what this stream sent last`,
      );
    }
    if (message.form.case !== "content") {
      throw new WrongDelta(`a delta for entry ${id} has a form that is not known here`);
    }
    const before = tail.entry;
    const replaced = tail.content;
    try {
      const { content, appended } = replaced.patched(message.form.value);
      const text =
        appended === undefined ? Buffer.from(content.bytes).toString() : before.content + appended;
      const time = message.time === undefined ? {} : timeOf(message.time);
      const entry = { ...before, ...time, content: text, revision };
      tail.entry = entry;
      tail.content = content;
      this.#revision = revision;
      const change =
        appended === undefined
          ? changeOf(before, replaced.bytes, entry, content.bytes)
          : { entry, replaces: before.revision, kept: before.content.length, appended };
      return { kind: "entries", cursor, epoch, changes: [change] };
    } catch (error) {
      if (error instanceof DeltaError) {
        throw new WrongDelta(`a delta for entry ${id} ${error.message}`);
      }
      throw error;
    }
  }

  #tailWith(epoch: number, id: number): Tail | undefined {
    const tail = this.#tail;
    return tail?.epoch === epoch && tail.entry.id === id ? tail : undefined;
  }

  #isNew(revision: bigint): boolean {
    if (revision <= this.#revision) {
      return false;
    }
    this.#revision = revision;
    return true;
  }
}

/** Return how an entry differs from what was yielded of it before. The bytes are the contents. */
function changeOf(
  before: LogEntry,
  replaced: Uint8Array,
  entry: LogEntry,
  content: Uint8Array,
): EntryChange {
  const replaces = before.revision;
  const lost = entry.droppedBytes - before.droppedBytes;
  if (lost >= 0 && lost <= replaced.length) {
    // An entry of more than 1 MiB loses its front, but its growth may still be an append.
    const stays = replaced.subarray(lost);
    if (Buffer.compare(stays, content.subarray(0, stays.length)) === 0) {
      const appended = Buffer.from(content.subarray(stays.length)).toString();
      return { entry, replaces, kept: lost === 0 ? before.content.length : 0, appended };
    }
  }
  return { entry, replaces, kept: common(before.content, entry.content), appended: undefined };
}

/** Return how long the common start of two texts is, without half a surrogate pair at its end. */
function common(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let shared = 0;
  while (shared < most && a.charCodeAt(shared) === b.charCodeAt(shared)) {
    shared += 1;
  }
  const last = a.charCodeAt(shared - 1);
  return last >= 0xd800 && last < 0xdc00 ? shared - 1 : shared;
}

/** Return the message that `message` has inside, or `message`. Throws WrongDelta. */
function expanded(message: FollowTaskLogsResponse): FollowTaskLogsResponse {
  if (message.event.case !== "compressed") {
    return message;
  }
  const { zlib, sizeBytes } = message.event.value;
  if (sizeBytes < 1 || sizeBytes > MAX_EXPANDED_BYTES) {
    throw new WrongDelta(`a compressed message claims ${sizeBytes} bytes`);
  }
  let inside: FollowTaskLogsResponse;
  try {
    // `info` also says how much of the input was used.
    const { buffer, engine } = inflateSync(zlib, { maxOutputLength: sizeBytes, info: true }) as
      unknown as { buffer: Buffer; engine: { bytesWritten: number } };
    if (buffer.length !== sizeBytes || engine.bytesWritten !== zlib.length) {
      throw new WrongDelta("a compressed message has another length than it claims");
    }
    inside = fromBinary(FollowTaskLogsResponseSchema, buffer);
  } catch (error) {
    if (error instanceof WrongDelta) {
      throw error;
    }
    throw new WrongDelta(`a compressed message cannot be expanded: ${String(error)}`);
  }
  if (inside.event.case === "compressed") {
    throw new WrongDelta("a compressed message has a compressed message inside");
  }
  return inside;
}

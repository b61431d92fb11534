// The driver of tests/conformance, which describes what it reads and prints.
import { createInterface } from "node:readline";

import { TaskLogsClient, TaskLogsError, TaskStatus, type FollowEvent } from "../src/index.js";

interface Order {
  target: string;
  task: string;
  cursor?: string;
  tail?: number;
  tokens?: string[];
  progress?: boolean;
  until_status?: string;
  until_events?: number;
  first_wait_ms: number;
  most_wait_ms: number;
}

function say(line: object): void {
  const text = JSON.stringify(line, (_key, value: unknown) =>
    typeof value === "bigint" ? Number(value) : value,
  );
  process.stdout.write(`${text}\n`);
}

async function follow(order: Order): Promise<void> {
  const tokens = [...(order.tokens ?? [])];
  const token = (): string => (tokens.length > 1 ? tokens.shift() : tokens[0]) ?? "";
  const client = new TaskLogsClient(`http://${order.target}`, {
    waits: { first: order.first_wait_ms, most: order.most_wait_ms },
    ...(order.tokens === undefined ? {} : { token }),
  });
  try {
    let count = 0;
    for await (const event of client.follow(order.task, {
      progress: order.progress ?? false,
      ...(order.cursor === undefined ? {} : { cursor: order.cursor }),
      ...(order.tail === undefined ? {} : { tail: order.tail }),
      onReconnect: (state) => {
        if (state.kind === "reconnected") {
          say({ event: "reconnected" });
        } else {
          say({ event: "reconnecting", attempt: state.attempt, delay_ms: state.delayMs });
        }
      },
    })) {
      say({ cursor: event.cursor, ...lineOf(event) });
      count += 1;
      const isLast = event.kind === "status" && TaskStatus[event.status] === order.until_status;
      if (isLast || count === order.until_events) {
        break;
      }
    }
    say({ event: "left" });
  } catch (error) {
    const known = error instanceof TaskLogsError ? error : undefined;
    say({
      event: "error",
      code: known?.code ?? 0,
      reason: known?.reason ?? "",
      message: String(error),
      oldest_cursor: known?.oldestCursor ?? "",
    });
  } finally {
    client.close();
  }
}

function lineOf(event: FollowEvent): object {
  switch (event.kind) {
    case "status":
      return {
        event: "status",
        status: TaskStatus[event.status],
        task_id: event.taskId ?? "",
      };
    case "entries":
      return {
        event: "entries",
        epoch: event.epoch,
        changes: event.changes.map(({ entry, replaces, kept, appended }) => ({
          id: entry.id,
          type: entry.type,
          content: entry.content,
          time_ns: entry.timeNs.toString(),
          revision: entry.revision,
          dropped_bytes: entry.droppedBytes,
          source_id: entry.sourceId,
          name: entry.name,
          call_id: entry.callId,
          replaces: replaces ?? 0,
          kept_bytes: Buffer.byteLength(entry.content.slice(0, kept)),
          appended: appended ?? null,
        })),
      };
    case "withdrawn":
      return { event: "withdrawn", epoch: event.epoch, id: event.id, revision: event.revision };
    case "epoch":
      return { event: "epoch", epoch: event.epoch, revision: event.revision };
    case "caughtUp":
      return { event: "caught_up" };
    case "progress":
      return { event: "progress" };
  }
}

for await (const text of createInterface({ input: process.stdin })) {
  await follow(JSON.parse(text) as Order);
}

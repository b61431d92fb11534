import assert from "node:assert/strict";
import { createServer, type AddressInfo } from "node:net";
import { test } from "node:test";

import { Code } from "@connectrpc/connect";

import { ClientClosed, TaskLogsClient, TaskStatus } from "../src/index.js";
import { TaskLogs } from "../src/v1.js";
import { refused, serve } from "./server.js";

const TASK = "local/demo";
const SOON = { first: 1, most: 5 };
const LIMIT = { timeout: 60_000 };

function active(cursor: string) {
  return { cursor, event: { case: "status" as const, value: { status: TaskStatus.ACTIVE } } };
}

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => { resolve(); });
  });
}

for (const way of ["break", "signal", "close"] as const) {
  void test(`a follow that ends by ${way} leaves the server`, LIMIT, async (context) => {
    let left: () => void;
    const hasLeft = new Promise<void>((resolve) => (left = resolve));
    const url = await serve(context, (router) =>
      router.service(TaskLogs, {
        async *followTaskLogs(_request, { signal }) {
          yield active("c0");
          await ended(signal);
          left();
        },
      }),
    );
    const client = new TaskLogsClient(url);
    const controller = new AbortController();
    const reason = new Error("enough");
    const follow = async (): Promise<void> => {
      for await (const event of client.follow(TASK, { signal: controller.signal })) {
        assert.equal(event.cursor, "c0");
        if (way === "break") {
          break;
        } else if (way === "signal") {
          controller.abort(reason);
        } else {
          client.close();
        }
      }
    };

    if (way === "break") {
      await follow();
    } else {
      await assert.rejects(follow(), way === "signal" ? reason : ClientClosed);
    }
    await hasLeft;
    client.close();
  });
}

void test("a follow without a server ends with the cause", LIMIT, async () => {
  await using client = new TaskLogsClient("http://127.0.0.1:1", { waits: SOON });
  let told = 0;
  const follow = client.follow(TASK, { connectTimeoutMs: 100, onReconnect: () => (told += 1) });

  await assert.rejects(follow.next(), { code: Code.Unavailable });
  assert.notEqual(told, 0);
});

void test("a connection that is reset is unavailable, and is tried again", LIMIT, async (context) => {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.on("error", () => undefined);
    socket.once("data", () => socket.resetAndDestroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  await using client = new TaskLogsClient(`http://127.0.0.1:${port}`, { waits: SOON });

  await assert.rejects(client.get(TASK), { code: Code.Unavailable });
  const before = connections;
  const follow = client.follow(TASK, { connectTimeoutMs: 500 });

  await assert.rejects(follow.next(), { code: Code.Unavailable });
  assert(connections > before + 1);
});

void test("a follow gives up after its reconnect time-out", LIMIT, async (context) => {
  let opened = 0;
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      // eslint-disable-next-line @typescript-eslint/require-await -- the type of the handler
      async *followTaskLogs() {
        opened += 1;
        if (opened === 1) {
          yield active("c0");
        }
        throw refused(Code.Unavailable, "DRAINING");
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });
  let told = 0;
  const onReconnect = (): void => void (told += 1);
  const follow = client.follow(TASK, { reconnectTimeoutMs: 500, onReconnect });
  await follow.next();

  await assert.rejects(follow.next(), { reason: "DRAINING" });
  assert.notEqual(told, 0);
});

void test("a stream that falls silent is replaced", LIMIT, async (context) => {
  const cursors: string[] = [];
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      async *followTaskLogs({ cursor }, { signal }) {
        cursors.push(cursor);
        yield active(`c${cursor}`);
        if (cursor !== "") {
          throw refused(Code.NotFound, "TASK_NOT_FOUND");
        }
        await ended(signal);
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });
  const follow = client.follow(TASK, { progressIntervalMs: 1000 });
  await follow.next();

  await assert.rejects(follow.next(), { reason: "TASK_NOT_FOUND" });
  assert.deepEqual(cursors, ["", "c"]);
});

void test("a tail and a cursor together are refused", LIMIT, async () => {
  await using client = new TaskLogsClient("http://127.0.0.1:1");

  await assert.rejects(client.follow(TASK, { tail: 1, cursor: "c" }).next(), TypeError);
});

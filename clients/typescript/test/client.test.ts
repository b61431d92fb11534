import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { ClientClosed, TaskLogsClient, TaskLogsError, TokenFailed } from "../src/index.js";
import { TaskLogs, Tasks, TaskView } from "../src/v1.js";
import { refused, serve } from "./server.js";

const TASK = "local/demo";
const SOON = { first: 1, most: 5 };
const LIMIT = { timeout: 60_000 };

void test("a read continues page by page after a blip", LIMIT, async (context) => {
  const asked: string[] = [];
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      getTaskLogs: ({ pageToken }) => {
        asked.push(pageToken);
        switch (asked.length) {
          case 1:
            return { logs: [{ id: 0, content: "a" }], nextPageToken: "2", cursor: "c" };
          case 2:
            throw refused(Code.Unavailable, "STORE_UNAVAILABLE", 0);
          default:
            return { logs: [{ id: 1, content: "b" }] };
        }
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });

  const log = await client.get(TASK);

  assert.deepEqual(
    (await log.all()).map((entry) => entry.content),
    ["a", "b"],
  );
  assert.equal(log.cursor, "c");
  assert.deepEqual(asked, ["", "2", "2"]);
});

void test("an error has its reason and details", LIMIT, async (context) => {
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      getTaskLogs: () => {
        throw refused(Code.OutOfRange, "CURSOR_EXPIRED", 1500);
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });

  await assert.rejects(client.get(TASK), (error) => {
    assert(error instanceof TaskLogsError);
    assert.equal(error.code, Code.OutOfRange);
    assert.equal(error.reason, "CURSOR_EXPIRED");
    assert.equal(error.oldestCursor, "c7");
    assert.equal(error.retryAfterMs, 1500);
    assert.equal(error.retry, "no");
    assert.equal(error.message, "OutOfRange: no (CURSOR_EXPIRED)");
    return true;
  });
});

void test("only what may be repeated is repeated", LIMIT, async (context) => {
  let reads = 0;
  let updates = 0;
  const busy = refused(Code.ResourceExhausted, "STORE_BUSY", 0);
  const url = await serve(context, (router) =>
    router.service(Tasks, {
      listTasks: () => {
        reads += 1;
        throw busy;
      },
      updateTask: () => {
        updates += 1;
        throw busy;
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });

  await assert.rejects(client.listTasksPage(), { reason: "STORE_BUSY" });
  await assert.rejects(client.updateTask(TASK, { displayName: "x" }), { reason: "STORE_BUSY" });
  assert.deepEqual([reads, updates], [6, 1]);
});

void test("a wait that is longer than the time-out ends with the cause", LIMIT, async (context) => {
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      getTaskLogs: () => {
        throw refused(Code.Unavailable, "DRAINING", 3_600_000);
      },
    }),
  );
  await using client = new TaskLogsClient(url);

  await assert.rejects(client.get(TASK), { reason: "DRAINING" });
});

void test("a task that is created twice has one request id", LIMIT, async (context) => {
  const ids: string[] = [];
  const url = await serve(context, (router) =>
    router.service(Tasks, {
      createTask: ({ requestId }) => {
        ids.push(requestId);
        if (ids.length === 1) {
          throw new ConnectError("the connection broke", Code.Unavailable);
        }
        return { task: { owner: "o", name: "x" }, agentToken: "secret" };
      },
    }),
  );
  await using client = new TaskLogsClient(url, { waits: SOON });

  const { task, agentToken } = await client.createTask("x", { standalone: true });

  assert.deepEqual([task.fullName, agentToken], ["o/x", "secret"]);
  assert.equal(ids.length, 2);
  assert.equal(ids[0], ids[1]);
});

void test("a list is read page by page as far as it is used", LIMIT, async (context) => {
  let pages = 0;
  const url = await serve(context, (router) =>
    router.service(Tasks, {
      listTasks: ({ owner, view }) => {
        pages += 1;
        assert.deepEqual([owner, view], ["o", TaskView.BASIC]);
        const names = [2 * pages, 2 * pages + 1];
        return { tasks: names.map((one) => ({ name: `${one}` })), nextPageToken: `${pages}` };
      },
    }),
  );
  await using client = new TaskLogsClient(url);
  const names: string[] = [];

  for await (const task of client.listTasks({ owner: "o" })) {
    if (names.push(task.name) === 3) {
      break;
    }
  }

  assert.deepEqual(names, ["2", "3", "4"]);
  assert.equal(pages, 2);
});

void test("a token that is refused is asked for once more", LIMIT, async (context) => {
  const tokens: (string | null)[] = [];
  const url = await serve(context, (router) =>
    router.service(TaskLogs, {
      getTaskLogs: (_request, { requestHeader }) => {
        tokens.push(requestHeader.get("authorization"));
        if (tokens.length % 2 === 1) {
          throw refused(Code.Unauthenticated, "TOKEN_EXPIRED");
        }
        return {};
      },
    }),
  );
  let asked = 0;
  await using client = new TaskLogsClient(url, {
    token: () => {
      asked += 1;
      return Promise.resolve(`t${asked}\n`);
    },
  });
  await client.get(TASK);
  await using fixed = new TaskLogsClient(url, { token: "fixed" });

  await assert.rejects(fixed.get(TASK), { reason: "TOKEN_EXPIRED" });
  assert.deepEqual(tokens, ["Bearer t1", "Bearer t2", "Bearer fixed"]);
});

void test("what a token function throws is in the error", LIMIT, async (context) => {
  const url = await serve(context, (router) => router.service(TaskLogs, {}));
  const broken = new Error("the vault is sealed");
  await using client = new TaskLogsClient(url, {
    token: () => {
      throw broken;
    },
  });

  for (const call of [client.get(TASK), client.follow(TASK).next()]) {
    await assert.rejects(call, (error) => error instanceof TokenFailed && error.cause === broken);
  }
});

void test("no server is unavailable", LIMIT, async () => {
  await using client = new TaskLogsClient("http://127.0.0.1:1");

  await assert.rejects(client.get(TASK), { code: Code.Unavailable });
});

void test("a call leaves nothing at the signals", LIMIT, async (context) => {
  const url = await serve(context, (router) =>
    router.service(TaskLogs, { getTaskLogs: () => ({}) }),
  );
  await using client = new TaskLogsClient(url);
  const controller = new AbortController();

  await client.get(TASK, { signal: controller.signal });

  assert.equal(getEventListeners(controller.signal, "abort").length, 0);
});

void test("a signal and close end a call", LIMIT, async (context) => {
  const url = await serve(context, (router) =>
    router.service(TaskLogs, { getTaskLogs: () => new Promise(() => undefined) }),
  );
  const client = new TaskLogsClient(url);
  const reason = new Error("enough");
  const controller = new AbortController();
  const aborted = client.get(TASK, { signal: controller.signal });
  const closed = client.get(TASK);
  controller.abort(reason);
  await assert.rejects(aborted, reason);

  client.close();

  await assert.rejects(closed, ClientClosed);
  await assert.rejects(client.get(TASK), ClientClosed);
  await assert.rejects(client.follow(TASK).next(), ClientClosed);
});

// A server on loopback whose answers a test sets.
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

export async function serve(
  context: TestContext,
  routes: (router: ConnectRouter) => ConnectRouter,
): Promise<string> {
  const server = createServer(connectNodeAdapter({ routes }));
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    for (const session of sessions) {
      session.destroy();
    }
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Return an error as a TaskLogs server sends it. */
export function refused(code: Code, reason: string, retryAfterMs?: number): ConnectError {
  const error = new ConnectError("no", code);
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).string(reason);
  writer.tag(2, WireType.LengthDelimited).string("tasklogs.v1");
  writer.tag(3, WireType.LengthDelimited).fork();
  writer.tag(1, WireType.LengthDelimited).string("oldest_cursor");
  writer.tag(2, WireType.LengthDelimited).string("c7").join();
  error.details.push({ type: "google.rpc.ErrorInfo", value: writer.finish() });
  if (retryAfterMs !== undefined) {
    const delay = new BinaryWriter();
    delay.tag(1, WireType.LengthDelimited).fork();
    delay.tag(1, WireType.Varint).int64(Math.trunc(retryAfterMs / 1000));
    delay.tag(2, WireType.Varint).int32((retryAfterMs % 1000) * 1_000_000).join();
    error.details.push({ type: "google.rpc.RetryInfo", value: delay.finish() });
  }
  return error;
}

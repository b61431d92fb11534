import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";

import { DOMAIN, RETRIES, type KnownReason, type Retry } from "./reasons.js";

/** Why a call failed. Stable, for programs. Later servers may send others. */
export type Reason = KnownReason | (string & {});

/** An invalid field of the request, and why it is invalid. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** A limit that was exceeded, and its subject. */
export interface QuotaViolation {
  readonly subject: string;
  readonly description: string;
}

/** A call failed. What the server did not send is undefined or empty. */
export class TaskLogsError extends Error {
  override readonly name = "TaskLogsError";
  /** The code of gRPC. */
  readonly code: Code;
  /** undefined: no TaskLogs server said this, but a proxy, the network or this library. */
  readonly reason: Reason | undefined;
  /** Depends on the reason: docs/api.md lists it. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly violations: readonly FieldViolation[];
  readonly quotaViolations: readonly QuotaViolation[];
  /** An earlier retry would fail, too. */
  readonly retryAfterMs: number | undefined;
  /** Names the call in the server's log. */
  readonly requestId: string | undefined;

  constructor(message: string, code: Code, details: Partial<Details> = {}, cause?: unknown) {
    super(message, { cause });
    this.code = code;
    this.reason = details.reason;
    this.metadata = details.metadata ?? new Map<string, string>();
    this.violations = details.violations ?? [];
    this.quotaViolations = details.quotaViolations ?? [];
    this.retryAfterMs = details.retryAfterMs;
    this.requestId = details.requestId;
  }

  /** Whether the same call may succeed if it is made again; undefined: the reason is not known. */
  get retry(): Retry | undefined {
    const known = RETRIES[this.reason as KnownReason] as Retry | undefined;
    return known ?? (this.retryAfterMs === undefined ? undefined : "after");
  }

  /** For CURSOR_EXPIRED: the cursor of the oldest entry that is still stored. */
  get oldestCursor(): string | undefined {
    return this.metadata.get("oldest_cursor");
  }
}

/** The client was closed before or during the call. */
export class ClientClosed extends Error {
  override readonly name = "ClientClosed";

  constructor() {
    super("the client is closed");
  }
}

interface Details {
  reason: Reason | undefined;
  metadata: ReadonlyMap<string, string>;
  violations: FieldViolation[];
  quotaViolations: QuotaViolation[];
  retryAfterMs: number | undefined;
  requestId: string | undefined;
}

/** Return what a call threw as an error of this library. */
export function parsed(thrown: unknown): TaskLogsError {
  const error = ConnectError.from(thrown);
  const details: Partial<Details> = {};
  for (const detail of error.details) {
    if ("type" in detail) {
      try {
        take(details, detail.type, detail.value);
      } catch {
        // Malformed details must not hide the error itself.
      }
    }
  }
  const code = isFromTheNetwork(error) ? Code.Unavailable : error.code;
  const reason = details.reason === undefined ? "" : ` (${details.reason})`;
  const message = `${Code[code]}: ${error.rawMessage}${reason}`;
  return new TaskLogsError(message, code, details, error);
}

/** Whether the connection broke. Connect calls such errors Aborted, Canceled or Internal. */
function isFromTheNetwork(error: ConnectError): boolean {
  // Node.js resets the streams of a connection that breaks like this, and so does a proxy. It was
  // not the caller: then its signal is aborted.
  if (error.rawMessage === "http/2 stream closed with error code CANCEL (0x8)") {
    return true;
  }
  const cause = error.cause;
  if (!(cause instanceof Error) || !("code" in cause) || typeof cause.code !== "string") {
    return false;
  }
  return "syscall" in cause || cause.code.startsWith("ERR_HTTP2_");
}

// The messages of google.rpc, of which no well-kept package on npm has the stubs alone.
function take(details: Partial<Details>, type: string, value: Uint8Array): void {
  switch (type) {
    case "google.rpc.ErrorInfo": {
      const info = fields(value);
      if (texts(info, 2)[0] === DOMAIN) {
        details.reason = texts(info, 1)[0] ?? "";
        details.metadata = new Map(
          messages(info, 3).map((pair) => [texts(pair, 1)[0] ?? "", texts(pair, 2)[0] ?? ""]),
        );
      }
      break;
    }
    case "google.rpc.BadRequest":
      details.violations = messages(fields(value), 1).map((one) => ({
        field: texts(one, 1)[0] ?? "",
        description: texts(one, 2)[0] ?? "",
      }));
      break;
    case "google.rpc.QuotaFailure":
      details.quotaViolations = messages(fields(value), 1).map((one) => ({
        subject: texts(one, 1)[0] ?? "",
        description: texts(one, 2)[0] ?? "",
      }));
      break;
    case "google.rpc.RetryInfo": {
      const delay = messages(fields(value), 1)[0] ?? new Map<number, Field[]>();
      details.retryAfterMs = number(delay, 1) * 1000 + number(delay, 2) / 1_000_000;
      break;
    }
    case "google.rpc.RequestInfo":
      details.requestId = texts(fields(value), 1)[0];
      break;
  }
}

type Field = Uint8Array | number;

function fields(message: Uint8Array): Map<number, Field[]> {
  const found = new Map<number, Field[]>();
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const known = found.get(number) ?? [];
    found.set(number, known);
    switch (wireType) {
      case WireType.Varint:
        known.push(Number(reader.int64()));
        break;
      case WireType.LengthDelimited:
        known.push(reader.bytes());
        break;
      default:
        reader.skip(wireType, number);
    }
  }
  return found;
}

function texts(message: Map<number, Field[]>, number: number): string[] {
  const decoder = new TextDecoder();
  return (message.get(number) ?? []).flatMap((one) =>
    typeof one === "number" ? [] : [decoder.decode(one)],
  );
}

function messages(message: Map<number, Field[]>, number: number): Map<number, Field[]>[] {
  return (message.get(number) ?? []).flatMap((one) =>
    typeof one === "number" ? [] : [fields(one)],
  );
}

function number(message: Map<number, Field[]>, at: number): number {
  const found = message.get(at)?.at(-1);
  return typeof found === "number" ? found : 0;
}

import { crc32 } from "node:zlib";

import type { ContentDelta } from "./gen/types_pb.js";

const MAX_PIECES = 4096;
/** The limit of an entry: a stream that makes it grow without end must not fill the memory. */
const MAX_CONTENT_BYTES = 4 * 1024 * 1024;

/** The delta does not fit its base. */
export class DeltaError extends Error {}

/** A content in UTF-8 that deltas change, and its CRC-32. */
export class Content {
  readonly #crc32: number;
  /** `bytes` may be longer than the content: growth in many steps must not copy it each time. */
  readonly #bytes: Uint8Array;
  readonly length: number;

  private constructor(bytes: Uint8Array, length: number, crc: number) {
    this.#bytes = bytes;
    this.length = length;
    this.#crc32 = crc;
  }

  static of(text: string): Content {
    const bytes = Buffer.from(text);
    return new Content(bytes, bytes.length, crc32(bytes));
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  /** Return the content after `delta`. Throws DeltaError; this content stays as it is. */
  patched(delta: ContentDelta): { content: Content; appended: string | undefined } {
    this.#check(delta);
    const first = delta.pieces[0];
    const appends =
      delta.pieces.length === 1 && first?.from === 0n && first.bytes === BigInt(this.length);
    const content = appends ? this.#with(Buffer.from(first.text)) : this.#joined(delta);
    if (content.#crc32 !== delta.crc32) {
      throw new DeltaError("has a result with another checksum");
    }
    return { content, appended: appends ? first.text : undefined };
  }

  #check(delta: ContentDelta): void {
    const count = delta.pieces.length;
    if (count < 1 || count > MAX_PIECES) {
      throw new DeltaError(`has ${count} pieces, not 1 to ${MAX_PIECES}`);
    }
    if (delta.crc32 === undefined) {
      throw new DeltaError("has no checksum");
    }
    const size = BigInt(this.length);
    let total = 0n;
    for (const piece of delta.pieces) {
      const end = piece.from + piece.bytes;
      if (piece.from < 0n || piece.bytes < 0n || end > size) {
        throw new DeltaError(`keeps ${piece.bytes.toString()} bytes of ${this.length}`);
      }
      if (!this.#isBoundary(Number(piece.from)) || !this.#isBoundary(Number(end))) {
        throw new DeltaError("keeps a range that ends inside a code point");
      }
      // Pieces may repeat ranges: 4096 pieces of 1 MiB must not be joined.
      total += piece.bytes + BigInt(Buffer.byteLength(piece.text));
      if (total > MAX_CONTENT_BYTES) {
        throw new DeltaError(`has a result of more than ${MAX_CONTENT_BYTES} bytes`);
      }
    }
  }

  #with(text: Uint8Array): Content {
    const length = this.length + text.length;
    let bytes = this.#bytes;
    if (bytes.length < length) {
      bytes = new Uint8Array(Math.min(2 * length, MAX_CONTENT_BYTES));
      bytes.set(this.bytes);
    }
    bytes.set(text, this.length);
    return new Content(bytes, length, crc32(text, this.#crc32));
  }

  #joined(delta: ContentDelta): Content {
    const parts = delta.pieces.flatMap((piece) => [
      this.#bytes.subarray(Number(piece.from), Number(piece.from + piece.bytes)),
      Buffer.from(piece.text),
    ]);
    const bytes = Buffer.concat(parts);
    return new Content(bytes, bytes.length, crc32(bytes));
  }

  #isBoundary(at: number): boolean {
    return at === this.length || ((this.#bytes[at] ?? 0) & 0xc0) !== 0x80;
  }
}

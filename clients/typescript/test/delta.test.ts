import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { crc32 } from "node:zlib";

import { create } from "@bufbuild/protobuf";

import { Content, DeltaError } from "../src/delta.js";
import { ContentDeltaSchema } from "../src/v1.js";

interface Vector {
  why: string;
  base: string;
  pieces: { from: number; bytes: number; text: string }[];
  crc32: number;
  result: string;
  error?: string;
}

function patched(vector: Vector): string {
  const pieces = vector.pieces.map(({ from, bytes, text }) => ({
    from: BigInt(from),
    bytes: BigInt(bytes),
    text,
  }));
  const delta = create(ContentDeltaSchema, { pieces, crc32: vector.crc32 });
  return Buffer.from(Content.of(vector.base).patched(delta).content.bytes).toString();
}

// The vectors are those of every implementation. The tests run in clients/typescript.
const vectors = JSON.parse(readFileSync("../../tests/data/delta_vectors.json", "utf8")) as {
  applied: Vector[];
  refused: Vector[];
};

for (const vector of vectors.applied) {
  void test(`a delta gives what the vectors say: ${vector.why}`, () => {
    assert.equal(patched(vector), vector.result);
  });
}

for (const vector of vectors.refused) {
  void test(`a delta is refused as the vectors say: ${vector.why}`, () => {
    assert.throws(
      () => patched(vector),
      (error) =>
        error instanceof DeltaError &&
        error.message.includes("checksum") === (vector.error === "checksum"),
    );
  });
}

void test("a result is bounded before it is built", () => {
  const pieces = Array.from({ length: 4096 }, () => ({ bytes: 1n << 20n }));
  const delta = create(ContentDeltaSchema, { pieces, crc32: 0 });

  assert.throws(() => Content.of("a".repeat(1 << 20)).patched(delta), /more than/);
});

void test("growth in many steps keeps the content and its checksum", () => {
  let content = Content.of("");
  let text = "";
  for (let step = 0; step < 1000; step += 1) {
    text += step % 3 === 0 ? "漢" : "ab";
    const pieces = [{ bytes: BigInt(content.length), text: step % 3 === 0 ? "漢" : "ab" }];
    const delta = create(ContentDeltaSchema, { pieces, crc32: crc32(text) });
    content = content.patched(delta).content;
  }
  assert.equal(Buffer.from(content.bytes).toString(), text);
});

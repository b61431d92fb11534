"""Deltas and continuation of logs, on arbitrary contents and lists."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import cycle, pairwise
from typing import ClassVar

from tasklogs.log import digest
from tasklogs.log.content import Content
from tasklogs.log.continuation import Position, StoredTail, Verdict, compare
from tasklogs.log.delta import Delta, DeltaError, Piece, apply, check, diff, joined
from tasklogs.log.entry import Entry, EntryType, Time
from tests.fuzz import pieces
from tests.fuzz.target import Target
from tests.support.fixtures.content_deltas import cut, result_of


class Deltas(Target):
    """Contents that follow each other, and arbitrary deltas of several pieces.

    `apply` undoes `diff`. Joined deltas have the same effect. A delta that does not fit, or has
    another base, is refused and changes nothing. A list continues where the rules of the stream
    say.
    """

    name: ClassVar[str] = "deltas"
    max_bytes: ClassVar[int] = 1024
    tokens: ClassVar[Sequence[bytes]] = ("ü".encode(), "漢".encode(), "😀".encode(), b"\xf0\x9f")

    def seeds(self) -> Iterable[bytes]:
        grown = ["", "a", "aü", "aü漢", "aü漢😀", "aü漢😁", "aü", "b", ""]
        yield b"\x00\x01" + pieces.joined(text.encode() for text in grown)
        yield b"\x05\x03" + pieces.joined(b"same" for _ in range(6))
        yield b"\xff\x82" + pieces.joined([b"x\x00y", b"x\x00", "x\u202e".encode(), b"\xff\xfe"])
        yield b"\x03\x00" + pieces.joined([])
        yield b"\x00\x08" + pieces.joined([b"\x08\x0a\x0a\x09", b"ab\x08\x09\x08\x0b", b"x"])

    def run(self, data: bytes) -> None:
        flags, number = (*data[:2], 0, 0)[:2]
        contents = [
            piece.decode(errors="replace").encode() for piece in pieces.split(data[2:])
        ] or [b""]
        _check_successive(contents)
        _check_arbitrary(contents, data[2:])
        _check_continuation(contents, flags, number)


def _check_successive(contents: Sequence[bytes]) -> None:
    deltas = []
    for before, after in pairwise(contents):
        delta = diff(before, after)
        assert apply(before, delta) == after
        for piece in delta.pieces:
            piece.text.decode()
        kept = delta.kept_bytes
        longer = before[: kept + 4], after[: kept + 4]
        assert before == after or longer[0] != longer[1] or len(before) != len(after)
        deltas.append(delta)
    for first in range(len(deltas)):
        for last in range(first, min(len(deltas), first + 5)):
            _check_joined(contents[first], deltas[first : last + 1], contents[last + 1])


def _check_joined(base: bytes, deltas: Sequence[Delta], result: bytes) -> None:
    one = joined(deltas, result)
    assert apply(base, one) == result
    held = Content(base)
    for delta in deltas:
        held.patch(delta)
    held.patch(Delta.keeping(len(held), b""), crc32=zlib.crc32(result))
    assert held.data == result


def _check_arbitrary(contents: Sequence[bytes], numbers: bytes) -> None:
    """Apply pieces with arbitrary numbers: to each content, and after each other."""
    texts = cycle(contents)
    wild = Delta(
        tuple(Piece(low - 8, high - 8, next(texts)) for low, high in batched(numbers[:64]))
    )
    for base in contents:
        try:
            check(base, wild)
        except DeltaError:
            _check_refused(base, wild)
        else:
            assert apply(base, wild) == result_of(base, wild)
            apply(base, wild).decode()
    for base in contents:
        deltas, content = [], base
        for index in range(0, min(len(numbers), 24), 6):
            cuts = [(low, high, next(texts).decode()) for low, high in batched(numbers[index:][:6])]
            if not cuts:
                break
            deltas.append(cut(content, cuts))
            content = result_of(content, deltas[-1])
            if len(content) > 4096:
                break
            _check_joined(base, deltas, content)
            _check_other_bases(contents, deltas[-1], content)


def _check_other_bases(contents: Sequence[bytes], delta: Delta, wanted: bytes) -> None:
    for base in contents:
        held = Content(base)
        try:
            held.patch(delta, crc32=zlib.crc32(wanted))
        except DeltaError:
            assert held.data == base
        else:
            assert held.data == wanted, "the checksum must catch another base"


def _check_refused(base: bytes, delta: Delta) -> None:
    held = Content(base)
    try:
        held.patch(delta, crc32=0)
    except DeltaError:
        assert held.data == base
        assert held.crc32 == zlib.crc32(base)
    else:
        raise AssertionError("check refuses what patch accepts")


def batched(numbers: bytes) -> Iterable[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=False)


def _check_continuation(contents: Sequence[bytes], flags: int, number: int) -> None:
    """A store has a part of a list. The new list is the same except for one entry."""
    entries = [
        Entry(2 * number, EntryType(1 + number % 2), Time(number, 0), content)
        for number, content in enumerate(contents)
    ]
    count = number % (len(entries) + 1)
    stored, has_tail = entries[:count], bool(flags & 1) and count > 0
    sealed = stored[:-1] if has_tail else stored
    tail = StoredTail.of(stored[-1]) if has_tail else None
    position = Position(1, len(stored), digest.seal_all(sealed), tail)
    restarted = bool(flags & 2)
    assert compare(entries, position, restarted=restarted) is Verdict.CONTINUES
    assert compare(entries, Position(), restarted=restarted) is Verdict.OPENS_EPOCH
    if has_tail:
        wanted = Verdict.OPENS_EPOCH if restarted else Verdict.WITHDRAWS_TAIL
        assert compare(sealed, position, restarted=restarted) is wanted
    if sealed:
        shorter = compare(sealed[:-1], position, restarted=restarted)
        assert shorter is Verdict.OPENS_EPOCH
        changed = list(entries)
        at = (flags >> 3) % len(sealed)
        one = changed[at]
        changed[at] = Entry(one.id, one.type, one.time, one.content + b"!", one.dropped_bytes)
        assert compare(changed, position, restarted=restarted) is Verdict.OPENS_EPOCH
    if has_tail:
        _tails(entries, position, stored[-1], restarted=restarted)


def _tails(entries: list[Entry], stored: Position, tail: Entry, *, restarted: bool) -> None:
    at = stored.sealed
    for later in (-1, 0, 1):
        for content in (tail.content + b"!", tail.content[:-1], b"!"):
            time = Time(tail.time.seconds + later, 0)
            changed = [*entries[:at], Entry(tail.id, tail.type, time, content)]
            extends = content.startswith(tail.content)
            goes_on = later >= 0 and (not restarted or extends)
            wanted = Verdict.CONTINUES if goes_on else Verdict.OPENS_EPOCH
            assert compare(changed, stored, restarted=restarted) is wanted

"""Deltas and continuation of logs, on arbitrary contents and lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

from tasklogs.log import digest
from tasklogs.log.continuation import Position, StoredTail, Verdict, compare
from tasklogs.log.delta import Delta, DeltaError, check, diff, joined, patch
from tasklogs.log.entry import Entry, EntryType, Time
from tests.fuzz import pieces
from tests.fuzz.target import Target


class Deltas(Target):
    """Contents that follow each other, and arbitrary deltas.

    `patch` applies what `diff` makes. Joined deltas have the same effect. A delta that does not fit
    is refused and changes nothing. A list continues where the rules of the stream say.
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

    def run(self, data: bytes) -> None:
        flags, number = (*data[:2], 0, 0)[:2]
        contents = [
            piece.decode(errors="replace").encode() for piece in pieces.split(data[2:])
        ] or [b""]
        _check_successive(contents)
        _check_arbitrary(contents, number - 128)
        _check_continuation(contents, flags, number)


def _check_successive(contents: Sequence[bytes]) -> None:
    deltas = []
    for before, after in pairwise(contents):
        delta = diff(before, after)
        check(before, delta)
        delta.text.decode()
        held = bytearray(before)
        patch(held, delta)
        assert held == after
        longer = before[: delta.keep_bytes + 4], after[: delta.keep_bytes + 4]
        assert before == after or longer[0] != longer[1] or len(before) != len(after)
        deltas.append(delta)
    for first in range(len(deltas)):
        for last in range(first, min(len(deltas), first + 5)):
            held = bytearray(contents[first])
            patch(held, joined(deltas[first : last + 1]))
            assert held == contents[last + 1]


def _check_arbitrary(contents: Sequence[bytes], keep_bytes: int) -> None:
    for base in contents:
        held = bytearray(base)
        delta = Delta(keep_bytes, contents[-1])
        try:
            patch(held, delta)
        except DeltaError:
            assert held == base
        else:
            assert held == base[:keep_bytes] + contents[-1]
            held.decode()


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

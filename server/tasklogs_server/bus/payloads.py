"""Notes as text: what processes send each other. A payload is about 8,000 bytes at most.

A process of a later version may send notes of kinds that this one does not know, and notes with
more fields. Both are no error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from tasklogs_server.bus.notes import (
    BuildReported,
    Deleted,
    HeardNote,
    Moved,
    SessionBegan,
    SessionDoubted,
    SyncAnswered,
    SyncAsked,
)
from tasklogs_server.domain.synced import Synced

_INT64_MAX = 2**63 - 1
_INT32_MAX = 2**31 - 1
_ABOUT_CHARACTERS = 255
# A staleness that a caller may ask for: protobuf's longest duration is about as long.
_LONGEST_SECONDS = 315_576_000_000.0


class MalformedPayload(Exception):
    """The text is no payload of a process of this service."""


class About(NamedTuple):
    """Which server a process belongs to. The workers of one server have its pid."""

    host: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The sender begins to hear others. What they sent before is lost to it.

    `is_fresh`: it has published nothing yet, so that nobody missed anything of it. `about` is what
    the sender says of itself.
    """

    is_fresh: bool = False
    about: About | None = None


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The sender has heard that the receiver joined. `about` is what it says of itself."""

    about: About | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """The sender ends."""


@dataclass(frozen=True, slots=True)
class Missed:
    """The sender misses notes of the receiver, which says again which tasks it follows."""


@dataclass(frozen=True, slots=True)
class LookAtAll:
    """So many tasks changed that the note does not name them."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The sender lives. `direct`: the number of its last payload to each of some processes.

    The keys are the processes' ids in hexadecimal: every process gets the beats of all others, and
    looks for itself only.
    """

    direct: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Follows:
    """The sender follows more tasks, and no longer follows others."""

    more: Sequence[UUID]
    no_longer: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class FollowsAll:
    """A part of all tasks that the sender follows. `is_last`: with it they are complete."""

    tasks: Sequence[UUID]
    is_last: bool


Control: TypeAlias = Joined | Welcomed | Left | Missed | LookAtAll | Beat | Follows | FollowsAll
WireNote: TypeAlias = HeardNote | Control

# A process decides by this kind how to read the rest.
_PLAIN: dict[str, type[Left | Missed | LookAtAll]] = {
    "left": Left,
    "missed": Missed,
    "all": LookAtAll,
}
_OF_A_TASK: dict[str, type[Deleted | SessionDoubted | BuildReported]] = {
    "deleted": Deleted,
    "doubted": SessionDoubted,
    "build": BuildReported,
}
_KINDS: dict[type[Any], str] = {kind: name for name, kind in (_PLAIN | _OF_A_TASK).items()}


class Payload(NamedTuple):
    """Notes of one sender. `number` counts its payloads to all, or those to this process."""

    sender: UUID
    is_direct: bool
    number: int
    notes: Sequence[WireNote]


def head(sender: UUID, *, is_direct: bool, number: int) -> str:
    """Return what a payload begins with."""
    return f"{sender.hex} {'d' if is_direct else 'a'} {number} "


def encode(note: WireNote) -> str:
    """Return a note as JSON."""
    return json.dumps(_fields(note), separators=(",", ":"))


def joined(notes: Sequence[str], limit_bytes: int) -> Iterator[str]:
    """Join encoded notes to lists of at most so many bytes each. One note alone may be longer."""
    part: list[str] = []
    size = 2
    for note in notes:
        note_bytes = len(note) + 1  # JSON of ASCII only
        if part and size + note_bytes > limit_bytes:
            yield f"[{','.join(part)}]"
            part, size = [], 2
        part.append(note)
        size += note_bytes
    if part:
        yield f"[{','.join(part)}]"


def decode(payload: str) -> Payload:
    """Return a payload without the notes of unknown kinds. Raises MalformedPayload."""
    try:
        sender, stream, number, rest = payload.split(" ", 3)
        notes = [note for one in json.loads(rest) if (note := _note(one)) is not None]
        return Payload(UUID(hex=sender), stream == "d", _count(int(number)), notes)
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise MalformedPayload from error


def _fields(note: WireNote) -> list[Any]:
    match note:
        case Moved(task_id, commit, revision):
            return ["moved", task_id.hex, revision if commit is None else commit.head.revision]
        case Joined(is_fresh, about):
            return ["joined", is_fresh, *(about or ())]
        case Welcomed(about):
            return ["welcome", *(about or ())]
        case SessionBegan(task_id, fence):
            return ["session", task_id.hex, fence]
        case Deleted(task_id) | SessionDoubted(task_id) | BuildReported(task_id):
            return [_KINDS[type(note)], task_id.hex]
        case SyncAsked(id_, task_id, fence, max_staleness_seconds):
            return ["sync", id_, task_id.hex, fence, max_staleness_seconds]
        case SyncAnswered(id_, synced, failure):
            return ["synced", id_, None if synced is None else _synced_fields(synced), failure]
        case Beat(direct):
            return ["beat", direct]
        case Follows(more, no_longer):
            return ["follows", [one.hex for one in more], [one.hex for one in no_longer]]
        case FollowsAll(tasks, is_last):
            return ["follows_all", [one.hex for one in tasks], is_last]
        case _:
            return [_KINDS[type(note)]]


def _synced_fields(synced: Synced) -> list[Any]:
    return [synced.began_at.isoformat(), synced.fence, synced.revision, synced.build_number]


def _note(fields: object) -> WireNote | None:
    if not isinstance(fields, list):
        raise MalformedPayload
    kind = fields[0]
    if kind in _PLAIN:
        return _PLAIN[kind]()
    if kind in _OF_A_TASK:
        return _OF_A_TASK[kind](UUID(hex=fields[1]))
    match kind:
        case "joined":
            return Joined(fields[1] is True, _about(fields[2:5]))
        case "welcome":
            return Welcomed(_about(fields[1:4]))
        case "moved":
            revision = fields[2]
            return Moved(
                UUID(hex=fields[1]), revision=None if revision is None else _count(revision)
            )
        case "session":
            return SessionBegan(UUID(hex=fields[1]), _count(fields[2]))
        case "sync":
            seconds = None if fields[4] is None else _seconds(fields[4])
            return SyncAsked(_count(fields[1]), UUID(hex=fields[2]), _count(fields[3]), seconds)
        case "synced":
            return SyncAnswered(_count(fields[1]), _synced(fields[2]), _text(fields[3]))
        case "beat":
            return Beat(_numbers(fields[1]))
        case "follows":
            return Follows(_tasks(fields[1]), _tasks(fields[2]))
        case "follows_all":
            return FollowsAll(_tasks(fields[1]), bool(fields[2]))
    return None


def _about(fields: list[Any]) -> About | None:
    if len(fields) < len(About._fields):
        return None
    host, pid, version = fields
    if not (isinstance(host, str) and isinstance(version, str)):
        raise MalformedPayload
    return About(host[:_ABOUT_CHARACTERS], _count(pid), version[:_ABOUT_CHARACTERS])


def _numbers(fields: dict[str, int]) -> dict[str, int]:
    for number in fields.values():
        if type(number) is not int or not 0 <= number <= _INT64_MAX:
            raise MalformedPayload
    return fields


def _tasks(fields: list[str]) -> Sequence[UUID]:
    return [UUID(hex=one) for one in fields]


def _synced(fields: list[Any] | None) -> Synced | None:
    if fields is None:
        return None
    began_at, fence, revision, build_number = fields[:4]
    at = datetime.fromisoformat(began_at)
    if at.tzinfo is None:
        raise MalformedPayload
    return Synced(
        at,
        _count(fence),
        _count(revision),
        None if build_number is None else _count(build_number, _INT32_MAX),
    )


# Nothing that gets the notes looks at their values again. So what no server sends is refused here.


def _count(field: object, most: int = _INT64_MAX) -> int:
    if not isinstance(field, int) or not 0 <= field <= most:
        raise MalformedPayload
    return field


def _seconds(field: float) -> float:
    seconds = float(field)
    if not 0 <= seconds <= _LONGEST_SECONDS:  # NaN neither
        raise MalformedPayload
    return seconds


def _text(field: object) -> str | None:
    if field is not None and not isinstance(field, str):
        raise MalformedPayload
    return field

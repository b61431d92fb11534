"""What the lines of Gemini CLI's session files say (seen with 0.61.0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.agent.sources.session_transcript import SessionTranscript, time_of
from tasklogs.log.entry import EntryType, Names, Time

_REPLACED = "The agent replaced its history with a shorter one."


class Gemini(SessionTranscript):
    """Reads the sessions of one directory.

    A message comes again when it changes, and all of them when a session is resumed, then in
    another form. What is known is passed over. A resumed session has two files: the start of the
    program is in a new one, what is said goes on in the old one.
    """

    name = "gemini"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(options, settings, clock)
        self._thoughts = options.thoughts
        self.begins()

    def begins(self) -> None:
        """Forget the messages of another session."""
        self._known: dict[str, bytes] = {}
        self._last_id = ""

    def default_place(self) -> Path:
        """Return the directory of all projects."""
        return Path.home() / ".gemini" / "tmp"

    def session_of(self, path: Path) -> str | None:
        """Return the end of the file's name, which both files of a resumed session have."""
        is_session = path.name.startswith("session-") and path.suffix == ".jsonl"
        return path.stem.rpartition("-")[2] if is_session else None

    def directory_of(self, path: Path) -> object:
        """Return what the file beside the sessions of a directory says."""
        return (path.parent.parent / ".project_root").read_text(errors="replace").strip()

    def found(self, said: Mapping[str, Any]) -> Iterator[Found]:
        """Yield what one line says."""
        match said:
            case {"$set": {"messages": list(messages)}}:
                yield from self._listed(messages)
            case {"$set": _}:
                yield LeftOut("set")
            case {"id": str(), "type": str()}:
                yield from self._new(_records(said, thoughts=self._thoughts))
            case _:
                yield LeftOut("session")

    def _listed(self, messages: Iterable[Any]) -> Iterator[Found]:
        """A list takes the place of all messages. One that lacks some is a shorter history."""
        found = [
            found
            for message in messages
            if isinstance(message, dict)
            for found in _records(message, thoughts=self._thoughts)
        ]
        listed = {one.names.source_id for one in found if isinstance(one, Record)}
        if self._known and listed and not listed.issuperset(self._known):
            for one in found:
                if isinstance(one, Record):
                    self._known.setdefault(one.names.source_id, _digest(one.content))
            yield Record(EntryType.NOTICE, _REPLACED)
        else:
            yield from self._new(found)

    def _new(self, found: Iterable[Found]) -> Iterator[Found]:
        """Yield what is not known, and the last entry again if its content has changed."""
        for one in found:
            if not isinstance(one, Record):
                yield one
                continue
            own_id, digest = one.names.source_id, _digest(one.content)
            before = self._known.get(own_id)
            if before == digest or (before is not None and own_id != self._last_id):
                continue
            self._known[own_id] = digest
            self._last_id = own_id
            replaces = before is not None
            yield Record(one.type, one.content, one.time, one.names, replaces)


def _records(message: Mapping[str, Any], *, thoughts: bool) -> Iterator[Found]:
    """Yield the entries of one message, in either of its forms."""
    own_id, kind = message.get("id"), message.get("type")
    if not isinstance(own_id, str) or not own_id:
        yield LeftOut("message.no_id")  # it would be taken for another version of the one before
        return
    time = time_of(message.get("timestamp"))
    parts = _parts(message.get("content"))
    if kind == "gemini":
        if thoughts and (text := _thoughts(message.get("thoughts"))):
            yield Record(EntryType.THOUGHT, text, time, Names(f"{own_id}/thoughts"))
        if text := _texts(parts):
            yield Record(EntryType.OUTPUT, text, time, Names(own_id))
        calls = message.get("toolCalls")
        yield from _calls(calls if isinstance(calls, list) else parts, time)
    elif kind == "user":
        text = _texts(parts)
        if text.startswith("<session_context>"):
            yield LeftOut("context")
        elif text:
            yield Record(EntryType.INPUT, text, time, Names(own_id))
        yield from _results(parts, time)
    else:
        yield LeftOut(f"message.{kind}")


def _parts(content: object) -> list[Any]:
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _texts(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(str(part["text"]) for part in parts if "text" in part)


def _thoughts(thoughts: object) -> str:
    known = [one for one in thoughts if isinstance(one, dict)] if isinstance(thoughts, list) else []
    return "\n".join(f"{one.get('subject', '')}\n{one.get('description', '')}" for one in known)


def _calls(parts: Iterable[Any], time: Time | None) -> Iterator[Found]:
    for part in parts:
        call = part.get("functionCall", part) if isinstance(part, dict) else {}
        match call:
            case {"id": str(call_id), "name": str(name), "args": arguments}:
                text = json.dumps(arguments, ensure_ascii=False)
                yield Record(EntryType.TOOL_CALL, text, time, Names(call_id, name, call_id))


def _results(parts: Iterable[Mapping[str, Any]], time: Time | None) -> Iterator[Found]:
    for part in parts:
        match part.get("functionResponse"):
            case {"id": str(call_id), "name": str(name), "response": response}:
                names = Names(f"{call_id}/result", name, call_id)
                yield Record(EntryType.TOOL_RESULT, _output(response), time, names)


def _output(response: object) -> str:
    match response:
        case {"output": str(output)}:
            return output
    return json.dumps(response, ensure_ascii=False)


def _digest(content: str) -> bytes:
    return hashlib.blake2b(content.encode(errors="replace"), digest_size=16).digest()

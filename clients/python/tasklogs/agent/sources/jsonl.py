"""One JSON object a line, from any program: a file, or standard input.

`type` is `input`, `output`, `tool_call`, `tool_result` or `notice`; `content` a text (anything else
is written as JSON). Optional: `time` (RFC 3339), `id` (the last entry's again, with its type and
names, replaces it), `name`, `call_id`, and `"epoch": "new"` (another conversation begins here).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, NewEpoch, Record
from tasklogs.agent.sources.transcript import Transcript
from tasklogs.log import rfc3339
from tasklogs.log.entry import EntryType, Names, Time

_TYPES = {
    one.name.lower(): one
    for one in (
        EntryType.INPUT,
        EntryType.OUTPUT,
        EntryType.TOOL_CALL,
        EntryType.TOOL_RESULT,
        EntryType.NOTICE,
    )
}


class Jsonl(Transcript):
    """Reads lines that are written for this."""

    name = "jsonl"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(options, settings, clock)
        self._form = JsonLines()

    def begins(self) -> None:
        """Forget the last entry."""
        self._form.begins()

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what a line says."""
        return self._form.parse(line)


class JsonLines:
    """Reads the lines' own form."""

    def __init__(self) -> None:
        self._last: tuple[EntryType, Names] | None = None

    def begins(self) -> None:
        """Forget the last entry."""
        self._last = None

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what a line says."""
        if not line.strip():
            return ()
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return (LeftOut("no_json"),)
        return self._found(said) if isinstance(said, dict) else (LeftOut("no_object"),)

    def _found(self, said: dict[str, Any]) -> Iterator[Found]:
        if said.get("epoch") == "new":
            yield NewEpoch()
            if "type" not in said and "content" not in said:
                return
        kind = said.get("type")
        entry_type = _TYPES.get(kind) if isinstance(kind, str) else None
        if entry_type is None:
            yield LeftOut(str(kind))
            return
        names = Names(_text(said.get("id")), _text(said.get("name")), _text(said.get("call_id")))
        replaces = names.source_id != "" and self._last == (entry_type, names)
        self._last = (entry_type, names)
        yield Record(
            entry_type, _text(said.get("content")), _time(said.get("time")), names, replaces
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _time(value: object) -> Time | None:
    try:
        return rfc3339.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None

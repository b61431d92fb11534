"""What the lines of Codex' rollout files say (seen with 0.171.0)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.agent.sources.session_transcript import SessionTranscript, first_lines, id_of, time_of
from tasklogs.log.entry import EntryType, Names, Time

_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})


class Codex(SessionTranscript):
    """Reads the threads of one directory. A result's name is that of its call.

    A message is in the file twice: as the model's protocol has it, among instructions, and as an
    item that is completed. The latter is read; tools are in the former alone.
    """

    name = "codex"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(options, settings, clock)
        self._thoughts = options.thoughts
        self._tools: dict[str, str] = {}

    def begins(self) -> None:
        """Forget the calls of another thread."""
        self._tools = {}

    def default_place(self) -> Path:
        """Return the directory of all threads."""
        return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "sessions"

    def session_of(self, path: Path) -> str | None:
        """Return the thread's name."""
        is_thread = path.name.startswith("rollout-") and path.suffix == ".jsonl"
        return path.stem if is_thread else None

    def directory_of(self, path: Path) -> object:
        """Return what the thread's first line says."""
        payloads = (said.get("payload") for said in first_lines(path))
        named = (one["cwd"] for one in payloads if isinstance(one, dict) and "cwd" in one)
        return next(named, None)

    def found(self, said: Mapping[str, Any]) -> Iterator[Found]:
        """Yield what one line says."""
        kind, payload = str(said.get("type")), said.get("payload")
        if not isinstance(payload, dict):
            yield LeftOut(kind)
            return
        time = time_of(said.get("timestamp"))
        match kind, payload.get("type"):
            case "event_msg", "item_completed":
                yield self._item(payload.get("item"), time)
            case "response_item", str(part) if part in _CALLS:
                yield self._call(payload, time)
            case "response_item", str(part) if part in _RESULTS:
                yield self._result(payload, time)
            case "compacted", _:
                names = Names(f"compacted/{said.get('ordinal', '')}", "", "")
                yield Record(EntryType.NOTICE, str(payload.get("message", "")), time, names)
            case _, part:
                yield LeftOut(kind if part is None else f"{kind}.{part}")

    def _item(self, item: Any, time: Time | None) -> Found:
        names = Names(id_of(item, "id") if isinstance(item, dict) else "")
        match item:
            case {"type": "UserMessage", "content": list(parts)}:
                return Record(EntryType.INPUT, _text_of(parts), time, names)
            case {"type": "AgentMessage", "content": list(parts)}:
                return Record(EntryType.OUTPUT, _text_of(parts), time, names)
            case {"type": "Reasoning", "summary_text": list(parts)} if self._thoughts and parts:
                return Record(EntryType.THOUGHT, "\n".join(map(str, parts)), time, names)
            case {"type": str(kind)}:
                return LeftOut(f"item.{kind}")
        return LeftOut("item")

    def _call(self, payload: Mapping[str, Any], time: Time | None) -> Found:
        call_id, name = id_of(payload, "call_id"), id_of(payload, "name") or "local_shell"
        if call_id:
            self._tools[call_id] = name
        arguments = payload.get("arguments", payload.get("input", payload.get("action")))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        names = Names(id_of(payload, "id"), name, call_id)
        return Record(EntryType.TOOL_CALL, text, time, names)

    def _result(self, payload: Mapping[str, Any], time: Time | None) -> Found:
        call_id, output = id_of(payload, "call_id"), payload.get("output")
        names = Names(id_of(payload, "id"), self._tools.pop(call_id, ""), call_id)
        text = output if isinstance(output, str) else _text_of(output)
        return Record(EntryType.TOOL_RESULT, text, time, names)


def _text_of(parts: Any) -> str:
    """Return the text of a message's parts; images and files are only named."""
    listed = parts if isinstance(parts, list) else []
    texts = [
        part.get("text") or f"[{part.get('type')}]" for part in listed if isinstance(part, dict)
    ]
    return "\n".join(texts)

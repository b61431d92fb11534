"""What the lines of Claude Code's transcripts say (seen with 2.1.328)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, Record
from tasklogs.agent.sources.session_transcript import SessionTranscript, first_lines, id_of, time_of
from tasklogs.log.entry import EntryType, Names, Time

_COMMAND = re.compile(r"<command-name>(.*?)</command-name>", re.DOTALL)
_COMMAND_ARGUMENTS = re.compile(r"<command-args>(.*?)</command-args>", re.DOTALL)
_COMMAND_OUTPUT = ("<local-command-stdout>", "<local-command-stderr>", "<local-command-caveat>")


class ClaudeCode(SessionTranscript):
    """Reads the sessions of one directory. A result's name is that of its call."""

    name = "claude-code"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(options, settings, clock)
        self._thoughts = options.thoughts
        self._tools: dict[str, str] = {}

    def begins(self) -> None:
        """Forget the calls of another session."""
        self._tools = {}

    def default_place(self) -> Path:
        """Return the directory of all projects."""
        return Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude") / "projects"

    def session_of(self, path: Path) -> str | None:
        """Return the session's name. Sub-agents have files of their own, deeper in the tree."""
        is_own = "subagents" not in path.parts and not path.name.startswith("agent-")
        return path.stem if path.suffix == ".jsonl" and is_own else None

    def directory_of(self, path: Path) -> object:
        """Return what the first line says that names a directory."""
        return next((said["cwd"] for said in first_lines(path) if "cwd" in said), None)

    def found(self, said: Mapping[str, Any]) -> Iterator[Found]:
        """Yield what one line says."""
        kind = str(said.get("type"))
        if kind not in ("user", "assistant"):
            yield LeftOut(kind)
        elif said.get("isSidechain"):
            yield LeftOut("sidechain")
        elif said.get("isMeta"):
            yield LeftOut("meta")
        elif kind == "user":
            yield from self._from_user(said)
        else:
            yield from self._from_model(said)

    def _from_user(self, line: Mapping[str, Any]) -> Iterator[Found]:
        time, uuid = time_of(line.get("timestamp")), id_of(line, "uuid")
        for at, block in enumerate(_blocks(line)):
            names = Names(f"{uuid}/{at}" if uuid and at else uuid)
            match block:
                case {"type": "text", "text": str(text)} if line.get("isCompactSummary"):
                    yield Record(EntryType.NOTICE, text, time, names)
                case {"type": "text", "text": str(text)}:
                    yield _said_by_user(text, time, names)
                case {"type": "tool_result", "tool_use_id": str(call_id)}:
                    text = _text_of(block.get("content"))
                    names = names._replace(name=self._tools.pop(call_id, ""), call_id=call_id)
                    yield Record(EntryType.TOOL_RESULT, text, time, names)
                case _:
                    yield LeftOut(f"user.{_kind_of(block)}")

    def _from_model(self, line: Mapping[str, Any]) -> Iterator[Found]:
        message = _message(line)
        if message.get("model") == "<synthetic>":
            yield LeftOut("synthetic")
            return
        time = time_of(line.get("timestamp"))
        own_id, first = id_of(message, "id"), line.get("apiBlockIndex")
        for at, block in enumerate(_blocks(line), first if isinstance(first, int) else 0):
            names = Names(f"{own_id}/{at}" if own_id else "")
            match block:
                case {"type": "text", "text": str(text)}:
                    yield Record(EntryType.OUTPUT, text, time, names)
                case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                    self._tools[call_id] = name
                    arguments = json.dumps(block.get("input"), ensure_ascii=False)
                    names = names._replace(name=name, call_id=call_id)
                    yield Record(EntryType.TOOL_CALL, arguments, time, names)
                case {"type": "thinking", "thinking": str(text)} if self._thoughts and text:
                    yield Record(EntryType.THOUGHT, text, time, names)
                case _:
                    yield LeftOut(f"assistant.{_kind_of(block)}")


def _said_by_user(text: str, time: Time | None, names: Names) -> Found:
    """A command of the user's, such as `/clear`, is written as what the user said."""
    if text.startswith(_COMMAND_OUTPUT):
        return LeftOut("command_output")
    command = _COMMAND.search(text)
    if command is None or not text.lstrip().startswith("<command-"):
        return Record(EntryType.INPUT, text, time, names)
    arguments = _COMMAND_ARGUMENTS.search(text)
    words = [command[1], arguments[1] if arguments else ""]
    return Record(EntryType.NOTICE, " ".join(words).strip(), time, names)


def _message(line: Mapping[str, Any]) -> Mapping[str, Any]:
    message = line.get("message")
    return message if isinstance(message, dict) else {}


def _blocks(line: Mapping[str, Any]) -> list[Any]:
    content = _message(line).get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def _kind_of(block: Any) -> str:
    return str(block.get("type")) if isinstance(block, dict) else "block"


def _text_of(content: Any) -> str:
    """Return the text of a tool's result: a string, or blocks of which images are only named."""
    if isinstance(content, str):
        return content
    parts = (
        [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    return "\n".join(str(part.get("text", f"[{_kind_of(part)}]")) for part in parts)

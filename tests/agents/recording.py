"""What a real run wrote, phase by phase, cut to what the sources read.

Everything else has stand-ins: the repository holds no vendor's prompts and no text of their
screens, and no path of the machine that made the recording.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasklogs.agent.sources.aider_history import INPUT_HISTORY

DIRECTORY = Path(__file__).parent / "recorded"
WORKSPACE = "/workspace"
STAND_IN = "(a stand-in)"
_MOST_STEPS = 40
"""So many, and some more, are made of one phase."""

DATABASE = "opencode.db"
TABLES: Mapping[str, tuple[str, ...]] = {
    "session": ("id", "parent_id", "time_created", "time_updated"),
    "message": ("id", "session_id", "data"),
    "part": ("id", "message_id", "session_id", "data"),
}
"""The columns that are read of OpenCode's tables."""

AIDER_FILES = ".aider.*.history*"
"""Aider's two files, in which a line is a text."""

Cut = Callable[[Any], Any]


@dataclass
class Phase:
    """One command of the agent. `appended` has the lines that it wrote, by file."""

    name: str
    appended: dict[str, list[Any]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)


@dataclass
class Recording:
    """A run of one agent. `version` is the agent's, `recorded` a date."""

    agent: str
    version: str
    recorded: str
    phases: list[Phase]

    @classmethod
    def load(cls, agent: str) -> Recording:
        """Read the recording of an agent."""
        head, *rows = map(json.loads, (DIRECTORY / f"{agent}.jsonl").read_text().splitlines())
        recording = cls(**head, phases=[])
        for row in rows:
            match row:
                case {"phase": name}:
                    recording.phases.append(Phase(name))
                case {"file": file, "line": line}:
                    recording.phases[-1].appended.setdefault(file, []).append(line)
                case {"file": file, "text": text}:
                    recording.phases[-1].appended[file] = text.split("\n")
                case {"deleted": file}:
                    recording.phases[-1].deleted.append(file)
        return recording

    def save(self) -> None:
        """Write it: one line for each line of JSON, or for all lines of a text."""
        rows: list[dict[str, Any]] = [kept(vars(self), "agent", "version", "recorded")]
        for phase in self.phases:
            rows.append({"phase": phase.name})
            for file, lines in phase.appended.items():
                if isinstance(lines[0], str):
                    rows.append({"file": file, "text": "\n".join(lines)})
                    continue
                rows += [{"file": file, "line": line} for line in lines]
            rows += [{"deleted": file} for file in phase.deleted]
        DIRECTORY.mkdir(exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (DIRECTORY / f"{self.agent}.jsonl").write_text(text)


class Recorder:
    """Watches files of lines while a real agent writes them."""

    def __init__(
        self,
        directory: Path,
        workspace: Path,
        cut: Cut,
        files: str = "*.jsonl",
        read: Callable[[str], Any] = json.loads,
    ) -> None:
        """`files` is a pattern; `read` returns what a line says, to be cut."""
        self._directory = directory
        self._workspace = str(workspace)
        self._cut = cut
        self._files = files
        self._read_line = read
        self._read: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self.phases: list[Phase] = []

    def phase(self, name: str) -> None:
        """Keep what was written since the last phase."""
        phase = Phase(name)
        for path in sorted(self._directory.rglob(self._files), key=_order):
            said = path.read_bytes()
            known = self._names.setdefault(str(path), path.name)
            new = said[self._read.get(known, 0) :]
            self._read[known] = len(said)
            if new:
                assert new.endswith(b"\n")
                phase.appended[known] = [self._line(line) for line in new.splitlines()]
        gone = [path for path in self._names if not Path(path).exists()]
        phase.deleted = [self._names.pop(path) for path in gone]
        self.phases.append(phase)

    def _line(self, line: bytes) -> Any:
        return self._cut(self._read_line(_moved(line.decode(), self._workspace)))


def _moved(text: str, workspace: str) -> str:
    """Replace the directory of the run. OpenCode also writes it without the slash in front."""
    return text.replace(workspace, WORKSPACE).replace(workspace[1:], WORKSPACE[1:])


def _order(path: Path) -> tuple[bool, float]:
    # Aider writes what the user said into its history of inputs first, within one clock tick.
    return path.name.startswith(".aider.chat"), path.stat().st_ctime


class DatabaseRecorder:
    """Watches a database while OpenCode writes it. A line is a row that is new or has changed."""

    def __init__(self, path: Path, workspace: Path) -> None:
        self._path = path
        self._workspace = str(workspace)
        self._known: set[str] = set()
        self.phases: list[Phase] = []

    def phase(self, name: str) -> None:
        """Keep the rows that were written since the last phase."""
        rows = []
        with closing(sqlite3.connect(self._path)) as connection:
            for table, columns in TABLES.items():
                for values in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):
                    row = cut_opencode(table, dict(zip(columns, values, strict=True)))
                    text = _moved(json.dumps(row), self._workspace)
                    if text not in self._known:
                        self._known.add(text)
                        rows.append(json.loads(text))
        self.phases.append(Phase(name, {DATABASE: rows}))


def replay(phase: Phase, directory: Path) -> None:
    """Write what the agent wrote in a phase."""
    if DATABASE in phase.appended:
        _replay_rows(phase.appended[DATABASE], directory / DATABASE)
        return
    for name, lines in phase.appended.items():
        with (directory / name).open("a") as file:
            file.writelines(f"{_as_line(line)}\n" for line in lines)
    for name in phase.deleted:
        (directory / name).unlink()


def _as_line(line: Any) -> str:
    return line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)


def in_steps(phase: Phase) -> Iterator[Phase]:
    """Yield a phase for each line that the agent wrote, or for a few lines of many."""
    files = dict(phase.appended)
    # Aider writes what the user said here, before anything else.
    entered = {INPUT_HISTORY: files.pop(INPUT_HISTORY)} if INPUT_HISTORY in files else {}
    for name, lines in files.items():
        written = _as_written(lines) if name == DATABASE else lines
        size = max(1, len(written) // _MOST_STEPS)
        for at in range(0, len(written), size):
            yield Phase(phase.name, {**entered, name: written[at : at + size]})
            entered = {}
    for name in phase.deleted:
        yield Phase(phase.name, deleted=[name])


def _as_written(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of a database: a session, then each message before its parts."""

    def key(row: dict[str, Any]) -> tuple[str, str]:
        match row["table"]:
            case "session":
                return "", ""
            case "message":
                return row["id"], ""
        return row["message_id"], row["id"]

    return sorted(rows, key=key)


def _replay_rows(rows: Iterable[dict[str, Any]], path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in TABLES.items():
            listed = ", ".join(columns[1:])
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id PRIMARY KEY, {listed})")
        for row in rows:
            columns = TABLES[row["table"]]
            places = ", ".join("?" * len(columns))
            values = [row[column] for column in columns]
            connection.execute(f"REPLACE INTO {row['table']} VALUES ({places})", values)


def kept(of: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: of[name] for name in names if name in of}


def cut_claude_code(line: dict[str, Any]) -> dict[str, Any]:
    if line["type"] not in ("user", "assistant"):
        return kept(line, "type", "subtype", "timestamp")
    flags = ("type", "uuid", "timestamp", "isSidechain", "isMeta", "isCompactSummary")
    short = kept(line, *flags, "apiBlockIndex", "sessionId")
    message = kept(line["message"], "id", "role", "model", "content")
    text = message["content"] if isinstance(message["content"], str) else ""
    if line.get("isCompactSummary") or line.get("isMeta"):
        message["content"] = STAND_IN
    elif text.startswith("<local-command-stdout>"):
        message["content"] = f"<local-command-stdout>{STAND_IN}</local-command-stdout>"
    elif message.get("model") == "<synthetic>":
        message["content"] = [{"type": "text", "text": STAND_IN}]
    return {**short, "message": message}


def cut_codex(line: dict[str, Any]) -> dict[str, Any]:
    payload = line["payload"]
    short = kept(line, "timestamp", "ordinal", "type")
    match line["type"], payload.get("type"):
        case "event_msg", "item_completed":
            item = kept(payload["item"], "type", "id", "content")
            return {**short, "payload": {"type": "item_completed", "item": item}}
        case "response_item", "function_call":
            return {**short, "payload": kept(payload, "type", "id", "name", "arguments", "call_id")}
        case "response_item", "function_call_output":
            output = {**kept(payload, "type", "id", "call_id"), "output": "Exit code 0\nhello\n"}
            return {**short, "payload": output}
        case "compacted", _:
            return {**short, "payload": {"message": STAND_IN}}
    return {**short, "payload": kept(payload, "type", "role")}


def cut_gemini(line: dict[str, Any]) -> dict[str, Any]:
    def cut_message(message: dict[str, Any]) -> dict[str, Any]:
        short = kept(message, "id", "timestamp", "type", "content", "toolCalls", "thoughts")
        content = short.get("content")
        if isinstance(content, list) and content and "<session_context>" in str(content[0]):
            short["content"] = [{"text": f"<session_context>{STAND_IN}</session_context>"}]
        return short

    if "$set" in line:
        changed = dict(line["$set"])
        if "messages" in changed:
            changed["messages"] = [cut_message(message) for message in changed["messages"]]
        return {"$set": changed}
    if "type" in line and "id" in line:
        return cut_message(line)
    return line


def cut_opencode(table: str, row: dict[str, Any]) -> dict[str, Any]:
    if "data" in row:
        data = json.loads(row["data"])
        short = kept(data, "type", "role", "text", "time", "tool", "callID", "summary")
        if "error" in data:
            short["error"] = {}
        if isinstance(state := data.get("state"), dict):
            short["state"] = kept(state, "status", "input", "time")
            if "output" in state:
                short["state"]["output"] = "hello\n"
        row = {**row, "data": json.dumps(short, ensure_ascii=False)}
    return {"table": table, **row}


def cut_aider(line: str) -> str:
    """Keep what was said. Of what Aider says of itself, keep what the source knows."""
    if not line.startswith("> ") or line.startswith(("> Aider v", "> Restored ")):
        return line
    return f"> {STAND_IN}  "


def cut_acp(line: dict[str, Any]) -> dict[str, Any]:
    short = kept(line, "id", "method", "error")
    if "result" in line:
        short["result"] = kept(line["result"] or {}, "sessionId", "stopReason", "outcome")
    if "params" in line:
        params = line["params"]
        short["params"] = kept(params, "sessionId", "prompt", "toolCall", "options")
        if "update" in params:
            short["params"]["update"] = _cut_update(params["update"])
    return short


def _cut_update(update: dict[str, Any]) -> dict[str, Any]:
    said = ("sessionUpdate", "messageId", "content", "toolCallId", "title", "kind", "status")
    short = kept(update, *said, "rawInput", "rawOutput")
    if tool := update.get("_meta", {}).get("claudeCode", {}).get("toolName"):
        short["_meta"] = {"claudeCode": {"toolName": tool}}
    if "rawOutput" in short:
        short["rawOutput"] = "hello\n" if isinstance(short["rawOutput"], str) else {}
    if "<session_context>" in str(short.get("content")):
        short["content"] = {"type": "text", "text": f"<session_context>{STAND_IN}"}
    if isinstance(content := short.get("content"), list):
        hello = {"type": "content", "content": {"type": "text", "text": "hello\n"}}
        short["content"] = [part if part["type"] == "diff" else hello for part in content]
    return short


CUTS: Mapping[str, Cut] = {
    "acp-claude-code": cut_acp,
    "acp-gemini": cut_acp,
    "acp-opencode": cut_acp,
    "claude-code": cut_claude_code,
    "codex": cut_codex,
    "gemini": cut_gemini,
}

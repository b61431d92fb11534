"""What a recorded stream of the Agent Client Protocol says (version 1).

One JSON-RPC message a line, of both sides, in order: https://agentclientprotocol.com. A response is
matched with its request by the id. Both sides count their requests from 0, so the same id can be
open twice; what a result has tells which of them it answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.acp.content import text_of_block, text_of_blocks, text_of_tool_content
from tasklogs.agent.sources.acp.replay import Replay, Spoken, Verdict
from tasklogs.agent.sources.line_file import MAX_LINE_BYTES
from tasklogs.agent.sources.options import SourceOptions
from tasklogs.agent.sources.record import Found, LeftOut, NewEpoch, Record
from tasklogs.agent.sources.transcript import Transcript
from tasklogs.log.entry import NO_NAMES, EntryType, Names

_CHUNKS = {
    "user_message_chunk": EntryType.INPUT,
    "agent_message_chunk": EntryType.OUTPUT,
    "agent_thought_chunk": EntryType.THOUGHT,
}
_MARKS = {
    "session/new": "sessionId",
    "session/fork": "sessionId",
    "session/prompt": "stopReason",
    "session/request_permission": "outcome",
}
"""A field that the result of a method always has."""
_CONTEXT = ("<session_context>", "[Function Response: ")
"""With these Gemini CLI begins what it tells the model in the user's name."""
_SAID_BY_ITSELF = frozenset({"end_turn"})
_MOST_OPEN = 1000
"""Of ids of requests without a response, and of tools. The oldest is forgotten."""
_MOST_OF_AN_ID = 4
"""Of requests with one id: each side may have one, and some may never get a response."""
_MOST_OPTIONS = 20
_MAX_MESSAGE_CHARACTERS = 1000


@dataclass(slots=True)
class _Request:
    """What a response needs of its request. `options`: the names of the answers to a question."""

    method: str
    session: str
    call_id: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, method: str, params: Mapping[str, Any]) -> _Request:
        call, listed = params.get("toolCall"), params.get("options")
        call_id = _text(call.get("toolCallId")) if isinstance(call, dict) else ""
        options = {
            _short(option.get("optionId")): _short(option.get("name"))
            for option in (listed[:_MOST_OPTIONS] if isinstance(listed, list) else [])
            if isinstance(option, dict)
        }
        return cls(method, _session(params), call_id, options)


@dataclass(slots=True)
class _Tool:
    """A call as far as it was told. `shown` is its output as the host shows it."""

    name: str = ""
    title: str = ""
    arguments: str = ""
    output: Any = None
    shown: str = ""
    is_called: bool = False
    is_done: bool = False


class Acp(Transcript):
    """Reads the session that was created or loaded last. Another session opens an epoch.

    The messages have no times. A message grows by chunks: they are one entry as long as their kind
    and their `messageId` stay the same.
    """

    name = "acp"

    def __init__(
        self, options: SourceOptions, settings: Settings, clock: Callable[[], float]
    ) -> None:
        super().__init__(options, settings, clock)
        self._thoughts = options.thoughts
        self._keeps_back = bool(options.redact)
        """What matches may be in two chunks: with `--redact` a message is an entry at its end."""
        self.begins()

    def begins(self) -> None:
        """Forget everything."""
        self._session: str | None = None
        self._unanswered: dict[str, list[_Request]] = {}
        self._tools: dict[str, _Tool] = {}
        self._prompt = ""
        self._open: tuple[EntryType, Names] | None = None
        """The entry that the next chunk may extend."""
        self._kept: list[str] = []
        self._kept_size = 0
        self._spoken = Spoken()
        self._replay: Replay | None = None
        self._undecided: list[tuple[str, Mapping[str, Any]]] = []
        self._undecided_size = 0

    def ended(self) -> Iterable[Found]:
        """Return what was kept back."""
        yield from self._end_replay()
        yield from self._close()

    def parse(self, line: bytes) -> Iterable[Found]:
        """Return what a message says."""
        if not line.strip():
            return ()
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return (LeftOut("no_json"),)
        match said:
            case {"method": str(method)}:
                params = said.get("params")
                params = params if isinstance(params, dict) else {}
                if "id" in said:
                    return self._request(json.dumps(said["id"]), method, params)
                return self._notification(method, params)
            case {"id": request_id, "result": result}:
                return self._response(json.dumps(request_id), result, None)
            case {"id": request_id, "error": error}:
                return self._response(json.dumps(request_id), None, error)
        return (LeftOut("message"),)

    def _request(self, request_id: str, method: str, params: Mapping[str, Any]) -> Iterator[Found]:
        if method == "initialize":
            # Another connection, which counts from 0 again. No agent repeats what was cut short.
            self._unanswered = {}
            yield from self._end_replay()
            self._spoken.forget()
            yield from self._close()
        self._remember(request_id, _Request.of(method, params))
        match method:
            case "session/prompt" | "session/request_permission" if not self._is_own(params):
                yield LeftOut("other_session")
            case "session/prompt":
                yield from self._prompted(params)
            case "session/request_permission":
                yield from self._permission_asked(params)
            case "session/load":
                yield from self._close()
                is_own = _session(params) == self._session
                self._replay = Replay(self._spoken) if is_own else None
            case "session/new" | "session/fork" | "session/resume":
                pass
            case _:
                yield LeftOut(method)

    def _remember(self, request_id: str, request: _Request) -> None:
        requests = self._unanswered.setdefault(request_id, [])
        requests.append(request)
        del requests[:-_MOST_OF_AN_ID]
        if len(self._unanswered) > _MOST_OPEN:
            del self._unanswered[next(iter(self._unanswered))]

    def _notification(self, method: str, params: Mapping[str, Any]) -> Iterable[Found]:
        update = params.get("update")
        if method != "session/update" or not isinstance(update, dict):
            return (LeftOut(method),)
        return self._update(params, update)

    def _response(self, request_id: str, result: Any, error: Any) -> Iterator[Found]:
        request = self._answered(request_id, result, is_error=error is not None)
        if request is None:
            yield LeftOut("response")
            return
        is_own = request.session == self._session
        match request.method, result:
            case "session/prompt", _ if is_own:
                yield from self._turn_ended(result, error)
            case "session/request_permission", {"outcome": dict(outcome)} if is_own:
                yield from self._permission_answered(request, outcome)
            case "session/new" | "session/fork", {"sessionId": str(session)}:
                yield from self._turn_to(session)
            case "session/load" | "session/resume", _ if error is None:
                if self._replay is not None:
                    self._replay.responded()
                yield from self._turn_to(request.session)
            case "session/load", _:
                yield from self._end_replay()

    def _answered(self, request_id: str, result: Any, *, is_error: bool) -> _Request | None:
        """Return the request that a response answers: the latest one that it fits."""
        requests = self._unanswered.get(request_id, [])
        fields = result if isinstance(result, dict) else {}
        marked = [one for one in requests if _MARKS.get(one.method) in fields]
        unmarked = [one for one in requests if one.method not in _MARKS]
        found = requests if is_error else marked or unmarked or requests
        if not found:
            return None
        answered = found[-1]
        requests.remove(answered)
        if not requests:
            del self._unanswered[request_id]
        return answered

    def _is_own(self, params: Mapping[str, Any]) -> bool:
        """Whether a message is of the session that is read: the first, if none was created."""
        if self._session is None:
            self._session = _session(params)
        return _session(params) == self._session

    def _turn_to(self, session: str) -> Iterator[Found]:
        if session == self._session:
            return
        yield from self._close()
        if self._session is not None:
            unanswered = self._unanswered
            yield NewEpoch()
            self.begins()
            self._unanswered = unanswered
        self._session = session

    def _is_loading(self, session: str) -> bool:
        return any(
            request.method == "session/load" and request.session == session
            for requests in self._unanswered.values()
            for request in requests
        )

    def _update(self, params: Mapping[str, Any], update: Mapping[str, Any]) -> Iterator[Found]:
        kind = str(update.get("sessionUpdate"))
        session = _session(params)
        if session != self._session and self._is_loading(session):
            yield from self._turn_to(session)
        if not self._is_own(params):
            yield LeftOut("other_session")
        elif self._replay is not None and (kind in _CHUNKS or "toolCallId" in update):
            yield from self._judged(self._replay, kind, update)
        else:
            yield from self._said(kind, update)

    def _judged(self, replay: Replay, kind: str, update: Mapping[str, Any]) -> Iterator[Found]:
        is_known = str(update.get("toolCallId")) in self._tools
        match replay.judge(_CHUNKS.get(kind), update, is_known=is_known):
            case Verdict.REPEATED:
                self._undecided, self._undecided_size = [], 0
                yield LeftOut("replay")
            case Verdict.UNDECIDED:
                self._undecided.append((kind, update))
                self._undecided_size += len(text_of_block(update.get("content")))
                if self._undecided_size > MAX_LINE_BYTES:
                    yield from self._end_replay()
            case Verdict.NEW:
                yield from self._take_undecided()
                yield from self._said(kind, update)

    def _take_undecided(self) -> Iterator[Found]:
        undecided, self._undecided, self._undecided_size = self._undecided, [], 0
        for kind, update in undecided:
            yield from self._said(kind, update)

    def _end_replay(self) -> Iterator[Found]:
        """Take what comes as new. What is undecided is what was said last, so it is new."""
        self._replay = None
        yield from self._take_undecided()

    def _said(self, kind: str, update: Mapping[str, Any]) -> Iterator[Found]:
        match kind, update:
            case "agent_thought_chunk", _ if not self._thoughts:
                yield from self._close()
                yield LeftOut(kind)
            case "user_message_chunk", {"content": block} if why := self._not_said(block):
                yield LeftOut(why)
            case str(kind), {"content": block} if kind in _CHUNKS:
                names = Names(_text(update.get("messageId")), "", "")
                yield from self._chunk(_CHUNKS[kind], text_of_block(block), names)
            case "tool_call" | "tool_call_update", {"toolCallId": str(call_id)}:
                yield from self._tool_told(call_id, update, is_first=kind == "tool_call")
            case "compaction_summary_chunk", {"compactionId": str(own_id), "content": block}:
                yield from self._chunk(
                    EntryType.NOTICE, text_of_block(block), Names(own_id, "", "")
                )
            case "compaction_update", {"compactionId": str(own_id), "summary": list(blocks)}:
                text, names = text_of_blocks(blocks), Names(own_id, "", "")
                yield from self._whole(EntryType.NOTICE, text, names)
            case "notice", {"title": str(title)}:
                text = "\n".join(filter(None, (title, _text(update.get("description")))))
                yield from self._whole(EntryType.NOTICE, text)
            case _:
                yield LeftOut(kind)

    def _not_said(self, block: Any) -> str:
        """Return why the user has not said it: it repeats the prompt, or is not the user's."""
        text = text_of_block(block)
        if text and text in self._prompt:
            return "echo"
        return "context" if text.startswith(_CONTEXT) else ""

    def _chunk(self, kind: EntryType, text: str, names: Names) -> Iterator[Found]:
        if self._open != (kind, names):
            yield from self._close()
        if not text:
            return
        extends = self._open is not None
        self._open = kind, names
        self._spoken.add(kind, text)
        if not self._keeps_back:
            yield Record(kind, text, None, names, extends=extends)
            return
        self._kept.append(text)
        self._kept_size += len(text)
        if self._kept_size > MAX_LINE_BYTES:
            yield from self._close()

    def _close(self) -> Iterator[Found]:
        """End the message that grows."""
        if self._open is not None and self._kept:
            kind, names = self._open
            yield Record(kind, "".join(self._kept), None, names)
        self._open, self._kept, self._kept_size = None, [], 0
        self._spoken.end()

    def _whole(self, kind: EntryType, text: str, names: Names = NO_NAMES) -> Iterator[Found]:
        replaces = self._open == (kind, names)
        if replaces:
            self._kept = []
        yield from self._close()
        if text:
            yield Record(kind, text, None, names, replaces=replaces)

    def _prompted(self, params: Mapping[str, Any]) -> Iterator[Found]:
        yield from self._close()
        self._prompt = text_of_blocks(params.get("prompt"))
        if self._prompt:
            self._spoken.add(EntryType.INPUT, self._prompt)
            self._spoken.end()
            yield Record(EntryType.INPUT, self._prompt)

    def _turn_ended(self, result: Any, error: Any) -> Iterator[Found]:
        yield from self._end_replay()
        yield from self._close()
        self._prompt = ""
        for call_id, tool in self._tools.items():
            yield from self._called(call_id, tool)
        reason = result.get("stopReason") if isinstance(result, dict) else None
        if error is not None:
            message = error.get("message") if isinstance(error, dict) else None
            yield from self._whole(EntryType.NOTICE, f"The turn failed: {_short(message)}")
        elif reason is not None and reason not in _SAID_BY_ITSELF:
            yield from self._whole(EntryType.NOTICE, f"The turn ended: {_short(reason)}")

    def _tool_told(
        self, call_id: str, update: Mapping[str, Any], *, is_first: bool
    ) -> Iterator[Found]:
        tool = self._tools.get(call_id)
        if tool is None or (is_first and tool.is_done):
            tool = self._tools[call_id] = _Tool()
            if len(self._tools) > _MOST_OPEN:
                del self._tools[next(iter(self._tools))]
        if tool.is_done:
            yield LeftOut("tool_call_update.late")
            return
        _merge(tool, update)
        status = update.get("status")
        if tool.arguments or status not in (None, "pending"):
            yield from self._called(call_id, tool)
        if status in ("completed", "failed"):
            yield from self._close()
            tool.is_done = True
            names = Names(f"{call_id}/result", tool.name, call_id)
            yield Record(EntryType.TOOL_RESULT, _result(tool), None, names)
            tool.output, tool.shown = None, ""

    def _called(self, call_id: str, tool: _Tool) -> Iterator[Found]:
        if not tool.is_called:
            yield from self._close()
            tool.is_called = True
            text, tool.arguments = tool.arguments or tool.title, ""
            yield Record(EntryType.TOOL_CALL, text, None, Names(call_id, tool.name, call_id))

    def _permission_asked(self, params: Mapping[str, Any]) -> Iterator[Found]:
        call = params.get("toolCall")
        if not isinstance(call, dict) or not isinstance(call.get("toolCallId"), str):
            yield LeftOut("session/request_permission")
            return
        call_id = call["toolCallId"]
        yield from self._end_replay()
        yield from self._tool_told(call_id, call, is_first=False)
        yield from self._called(call_id, self._tools[call_id])
        yield from self._close()
        names = self._permission_names(call_id)
        yield Record(EntryType.NOTICE, self._question(call_id), None, names)
        self._open = EntryType.NOTICE, names

    def _permission_answered(
        self, request: _Request, outcome: Mapping[str, Any]
    ) -> Iterator[Found]:
        chosen = _short(outcome.get("optionId", outcome.get("outcome")))
        answer = request.options.get(chosen, chosen)
        text = f"{self._question(request.call_id)}\nAnswer: {answer}"
        yield from self._whole(EntryType.NOTICE, text, self._permission_names(request.call_id))

    def _permission_names(self, call_id: str) -> Names:
        return Names(f"{call_id}/permission", self._tools[call_id].name, call_id)

    def _question(self, call_id: str) -> str:
        tool = self._tools[call_id]
        return f"Permission asked: {tool.title or tool.name}"


def _merge(tool: _Tool, update: Mapping[str, Any]) -> None:
    """Take over what an update says of a tool: what it leaves out stays as it was."""
    match update:
        case {"name": str(name)} | {"_meta": {"claudeCode": {"toolName": str(name)}}}:
            tool.name = name
        case {"kind": str(kind)} if not tool.name:
            tool.name = kind
    if isinstance(title := update.get("title"), str):
        tool.title = _short(title)
    if not tool.is_called and (arguments := update.get("rawInput")):
        tool.arguments = _as_text(arguments)
    if isinstance(content := update.get("content"), list):
        tool.shown = text_of_tool_content(content)
    if (output := update.get("rawOutput")) is not None:
        tool.output = output


def _result(tool: _Tool) -> str:
    """Return the text that the tool gave the model, else what the host shows, else JSON."""
    if isinstance(tool.output, str) and tool.output:
        return tool.output
    return tool.shown or ("" if tool.output is None else _as_text(tool.output))


def _session(params: Mapping[str, Any]) -> str:
    return _short(params.get("sessionId"))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _short(value: object) -> str:
    return str(value)[:_MAX_MESSAGE_CHARACTERS]

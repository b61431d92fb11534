"""Finds the calls that tools' results belong to, so that headings can name them."""

from __future__ import annotations

from tasklogs.enums import TaskLogType

_MOST_CALLS = 1000


class ToolCalls:
    """The last calls among the entries that are printed, in their order."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._last_id: int | None = None

    def call_of(self, id_: int, type_: int, call_id: str) -> int | None:
        """Note the next entry. Return the id of the call that it is the result of.

        None: it is no result, its call was not printed, or is printed right before it.
        """
        before, self._last_id = self._last_id, id_
        if not call_id:
            return None
        if type_ == TaskLogType.TOOL_CALL:
            self._ids[call_id] = id_
            if len(self._ids) > _MOST_CALLS:
                del self._ids[next(iter(self._ids))]
        elif type_ == TaskLogType.TOOL_RESULT:
            call = self._ids.get(call_id)
            return None if call == before else call
        return None

    def forget(self) -> None:
        """Forget all calls: a new conversation begins."""
        self._ids.clear()
        self._last_id = None

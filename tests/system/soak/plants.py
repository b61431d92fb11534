"""Mistakes that are planted into every server of a run, to see that the checks find them."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple


class Change(NamedTuple):
    """A piece of a module's source, and what replaces it.

    `new` may call IS_UP(), whether the run is up, and LEFT(coroutine), which never ends it.
    """

    module: str
    old: str
    new: str


PLANTS: Mapping[str, Sequence[Change]] = {
    # Other processes are not told of commits, and feeds look by themselves too rarely.
    "loses-moved": (
        Change(
            "tasklogs_server.bus.shared",
            "for process_id in self._interests.of(task_id):",
            "for process_id in () if IS_UP() else self._interests.of(task_id):",
        ),
        Change("tasklogs_server.reads.feed", "_POLL_SECONDS = 10.0", "_POLL_SECONDS = 3600.0"),
    ),
    # A live read is answered without a sync where another process has the session.
    "answers-unsynced": (
        Change(
            "tasklogs_server.ingest.elsewhere",
            "self._last_id += 1",
            "import datetime as d; return Synced(d.datetime.now(d.UTC), holder.fence, 0)",
        ),
    ),
    # A session that another process has superseded goes on: its appends are committed, too.
    "ignores-fences": (
        Change(
            "tasklogs_server.store.commit_statements",
            "h.fence = :fence AND h.revision = :base_revision",
            "h.revision >= :base_revision",
        ),
        Change("tasklogs_server.ingest.session_audit", "if not held:", "if True:"),
    ),
    # Each session that begins in another process leaves tasks behind.
    "leaks-tasks": (
        Change(
            "tasklogs_server.ingest.elsewhere",
            "known = self._begun.pop(task_id, None)",
            "known = self._begun.pop(task_id, None)\n"
            "        for _ in range(5): LEFT(asyncio.Event().wait())",
        ),
    ),
}


UP = "up"
"""The file that the run makes when it is up, beside the journals of the servers."""


def plant(names: Sequence[str], up: Path) -> None:
    """Change the source of this process's server. Call it before the server is imported."""
    changed = {change.module for name in names for change in PLANTS[name]}
    assert not changed & sys.modules.keys(), "a module is imported before its mistake is planted"
    left: list[object] = []
    vars(builtins)["IS_UP"] = up.exists
    vars(builtins)["LEFT"] = lambda coroutine: left.append(asyncio.ensure_future(coroutine))
    sys.meta_path.insert(0, _Finder([change for name in names for change in PLANTS[name]]))


class _Finder(MetaPathFinder):
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        changes = [one for one in self._changes if one.module == fullname]
        spec = PathFinder.find_spec(fullname, path, target) if changes else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, changes)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(fullname, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        for change in self._changes:
            if change.old not in source:
                raise ImportError(f"{fullname} has no {change.old!r} to change")
            source = source.replace(change.old, change.new)
        return compile(source, self.path, "exec")

"""The files of an agent's sessions in one directory, read one session after the other.

Blocking calls: run them in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from tasklogs.agent.sources.line_file import Change, LineFile, Look
from tasklogs.agent.sources.session_tree import Seen, SessionOf, SessionTree
from tasklogs.log.entry import Time

QUIET_SECONDS = 30.0
"""An older session takes over again (it was resumed) only if the one that is read has said nothing
for so long: each change is another epoch, and two agents at once would fight for the log."""
_ALL_EVERY_SECONDS = 5.0
"""How often all files are looked at, to see which older session goes on. New files are seen at each
look."""


class SessionFiles:
    """Reads the newest session, and turns to the next when that appears.

    A session is read to its end before another one. It may have several files, which are read as
    if they were one.
    """

    def __init__(
        self, root: Path, session_of: SessionOf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root = root
        self._clock = clock
        self._since: Time | None = None
        self._tree = SessionTree(root, session_of)
        self._seen: dict[Path, Seen] = {}
        self._found: dict[Path, Seen] = {}
        """What the last look around found; `_seen` lacks what is not taken up yet."""
        self._found_at = 0.0
        self._chooses = True
        self._waiting: list[str] = []
        self._put_back: list[str] = []
        self._before: str | None = None
        """The session that was read before this one."""
        self._session: str | None = None
        self._files: dict[Path, LineFile] = {}
        self._heard_at = 0.0

    def begin(self, since: Time | None) -> None:
        """Start with the first session that changed after `since`; None: with the newest."""
        self._since = since

    def start_over(self) -> None:
        """Choose again where to start, at the next look."""
        self.close()
        self._session = None
        self._waiting, self._put_back = [], []
        self._chooses = True

    def _choose(self) -> None:
        self._look_around(at_all_files=True)
        self._seen = dict(self._found)
        since, self._since = self._since, None
        first_ns = (since.seconds - 1) * 1_000_000_000 if since is not None else 0
        recent = [path for path in self._seen if self._seen[path].changed_ns >= first_ns]
        by_age = self._by_age(recent or self._seen)
        self._waiting = by_age if recent and since is not None else by_age[-1:]
        self._chooses = False
        self._open_next()

    def put_back(self) -> None:
        """Keep the session before this one for later: see `take_up`."""
        if self._before is not None:
            self._put_back.append(self._before)

    def take_up(self) -> None:
        """Let the sessions that were put back follow this one."""
        self._waiting = self._put_back + self._waiting
        self._put_back = []

    def close(self) -> None:
        """Close the files that are read."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def look(self) -> Look:
        """Read on. STARTED_OVER: another session begins. Raises OSError."""
        if self._chooses:
            self._choose()
        look = self._look()
        if look.lines:
            self._heard_at = self._clock()
            return replace(look, is_end=False)  # another file may have more
        if not look.is_end:
            return look
        is_first = self._session is None
        self._waiting += self._successors()
        if self._open_files():
            return Look([])
        if not self._open_next():
            return look
        return Look([]) if is_first else Look([], Change.STARTED_OVER)

    def _look(self) -> Look:
        """Read on in the first of the session's files that has more."""
        looks = [Look([], Change.MISSING, is_end=True)]
        for file in self._files.values():
            look = file.look()
            if look.lines or not look.is_end:
                return look
            looks.append(look)
        # One of several files may vanish without a loss.
        return min(looks, key=lambda look: look.change is not Change.NONE)

    def _open_next(self) -> bool:
        if not self._waiting:
            return False
        self.close()
        self._before, self._session = self._session, self._waiting.pop(0)
        self._heard_at = self._clock()
        self._open_files()
        return True

    def _open_files(self) -> bool:
        """Open the session's files, the oldest first. Returns whether there are new ones."""
        own = [path for path in self._seen if self._seen[path].session == self._session]
        new = [path for path in own if path not in self._files]
        for path in sorted(new, key=lambda path: (self._seen[path].changed_ns, path)):
            self._files[path] = LineFile(path)
        return bool(new)

    def _successors(self) -> list[str]:
        """Return the sessions that are new, or that go on again while the other is quiet."""
        is_all_due = self._clock() - self._found_at >= _ALL_EVERY_SECONDS
        if not self._look_around(at_all_files=is_all_due) and self._seen == self._found:
            return []
        known, self._seen = self._seen, dict(self._found)
        is_quiet = self._clock() - self._heard_at >= QUIET_SECONDS
        known_sessions = {seen.session for seen in known.values()}
        found: list[Path] = []
        for path, seen in list(self._seen.items()):
            if seen.session == self._session or seen.session in self._waiting:
                continue
            before = known.get(path)
            if seen.session not in known_sessions:
                if seen.size:
                    found.append(path)
                else:
                    del self._seen[path]  # new once it has something
            elif before is None or seen.size > before.size:
                if is_quiet:
                    found.append(path)
                elif before is None:
                    del self._seen[path]
                else:
                    self._seen[path] = before  # seen as grown once the other is quiet
        return self._by_age(found)

    def _by_age(self, paths: Iterable[Path]) -> list[str]:
        """Return the sessions of files, the one that changed last at the end."""
        changed: dict[str, int] = {}
        for path in paths:
            seen = self._seen[path]
            changed[seen.session] = max(seen.changed_ns, changed.get(seen.session, 0))
        return sorted(changed, key=lambda session: (changed[session], session))

    def _look_around(self, *, at_all_files: bool) -> bool:
        """Look for files. Returns whether there may be any news."""
        if at_all_files:
            self._found_at = self._clock()
        found = self._tree.look(at_all_files=at_all_files)
        if found is not None:
            self._found = found
        return found is not None

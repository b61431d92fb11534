"""Counts what of a transcript is not sent, and says so once."""

from __future__ import annotations

import re
from collections import Counter

from tasklogs.publish.event_log import EventLog

_log = EventLog()
_MOST_KINDS = 50
# A kind is the transcript's own text: only what looks like a name is logged.
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,40}")


class LeftOutCount:
    """How many lines, or parts of lines, were left out, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._is_told = False

    def add(self, kind: str, count: int = 1) -> None:
        """Count what was left out."""
        name = kind if _NAME.fullmatch(kind) else "other"
        if name not in self.counts and len(self.counts) >= _MOST_KINDS:
            name = "other"
        self.counts[name] += count

    def tell(self) -> None:
        """Log what was left out so far, the first time there is something."""
        if self.counts and not self._is_told:
            self._is_told = True
            _log.info("transcript.left_out", count=self.counts.total(), kinds=sorted(self.counts))

    def tell_total(self) -> None:
        """Log the totals, if there is something."""
        if self.counts:
            _log.info("transcript.left_out", count=self.counts.total(), kinds=sorted(self.counts))

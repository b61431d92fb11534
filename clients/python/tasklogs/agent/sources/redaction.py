"""Removes what regular expressions match, before anything is hashed or sent.

RE2 takes time in proportion to the text, whatever the expression: a bad one cannot hold up the
agent. It refuses what it cannot bound (backreferences, look-around).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from tasklogs.agent.sources.options import UnusableSource
from tasklogs.extras import how_to_install
from tasklogs.log.text import to_utf8

REDACTED = "[redacted]"
_MAX_PATTERNS = 100
_MAX_PATTERN_CHARACTERS = 1000


class Redactor:
    """Replaces matches of any of the expressions with `[redacted]`: one for those that touch."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises UnusableSource for expressions that cannot be used."""
        if len(patterns) > _MAX_PATTERNS:
            raise UnusableSource(f"--redact: more than {_MAX_PATTERNS} expressions")
        self._patterns = [_compiled(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        """Whether there are any expressions."""
        return bool(self._patterns)

    def text(self, text: str) -> str:
        """Return `text` without what matches."""
        if not self._patterns:
            return text
        return self.utf8(to_utf8(text)).decode()

    def utf8(self, content: bytes) -> bytes:
        """Return UTF-8 without what matches."""
        for pattern in self._patterns:
            if pattern.search(content) is not None:
                content = _replaced(pattern, content)
        return content


def _replaced(pattern: Any, content: bytes) -> bytes:
    # `sub` of the library takes twice the time: it reads the replacement anew for each match.
    kept: list[bytes] = []
    at = 0
    for match in pattern.finditer(content):
        begin, end = match.span()
        kept.append(content[at:begin])
        at = end
    kept.append(content[at:])
    return REDACTED.encode().join(kept)


def _compiled(pattern: str) -> Any:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        raise UnusableSource(
            f"--redact needs google-re2; {how_to_install('transcripts')}"
        ) from None
    if len(pattern) > _MAX_PATTERN_CHARACTERS:
        raise UnusableSource(f"--redact: longer than {_MAX_PATTERN_CHARACTERS} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        encoded = pattern.encode(errors="replace")
        compiled = re2.compile(encoded, options=options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise UnusableSource(f"--redact {pattern!r}: {said}") from None
    if compiled.search(b"") is not None:
        raise UnusableSource(f"--redact {pattern!r}: it matches the empty text")
    # A match costs Python some microseconds. So an expression for single characters is cheap, too.
    with contextlib.suppress(re2.error):  # a `\\Q` without its `\\E` takes in what follows
        return re2.compile(b"(?:" + encoded + b")+", options=options)
    return compiled

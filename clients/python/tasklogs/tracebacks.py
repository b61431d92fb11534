"""Where an unexpected exception came from, without what it says.

The text of an exception may quote what was being handled (asyncpg quotes rows and arguments, a
KeyError its key), and content is never logged. Types, files and lines are enough to find the bug.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator


def traceback_of(error: BaseException) -> str:
    """Return the frames and types of `error` and of what it came from, the first cause first."""
    return "\n\n".join(reversed(list(_chain(error))))


def _chain(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        yield f"Traceback (most recent call last):\n{frames}{_name(error)}"
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _chain(one)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else _qualified(kind)


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

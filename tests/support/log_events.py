"""Which events a program logs through structlog, as its source says.

A program's list of events is tested against this, so that the list is whole.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_METHODS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "log": "",
}
_LOGGERS = frozenset({"_log", "log"})
_NOUN_AND_VERB = re.compile(r"[a-z]+(?:_[a-z]+)*\.(?:[a-z]+_)*([a-z]+)")
_IRREGULAR = frozenset({"found", "kept", "left", "lost", "read", "sent"})


@dataclass(frozen=True)
class Logged:
    """One call of a logger."""

    event: str
    """Empty where the source does not name it as a plain string."""
    level: str
    """Empty where it is chosen at run time."""
    fields: frozenset[str]
    """`**` stands for fields that are put together at run time."""
    place: str
    """FILE:LINE."""


def logged_in(package: Path) -> list[Logged]:
    """Return all calls of loggers in the Python files of a package."""
    return [
        logged
        for file in sorted(package.rglob("*.py"))
        for logged in _logged_in(file, str(file.relative_to(package.parent)))
    ]


def is_noun_and_verb(event: str) -> bool:
    """Whether an event is `noun.verb`, the verb in its past or -ing form: `store.lost`.

    Either may have several words: `agent_token.not_refused`.
    """
    match = _NOUN_AND_VERB.fullmatch(event)
    return match is not None and (match[1].endswith(("ed", "ing")) or match[1] in _IRREGULAR)


def _logged_in(file: Path, name: str) -> Iterator[Logged]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if method in _METHODS and _is_logger(node.func.value):
                words = node.args[1:] if method == "log" else node.args
                fields = {keyword.arg or "**" for keyword in node.keywords}
                if method == "exception":
                    fields.add("exception")
                yield Logged(
                    _text(words[0]) if words else "",
                    _METHODS[method],
                    frozenset(fields),
                    f"{name}:{node.lineno}",
                )


def _is_logger(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _LOGGERS
    return isinstance(node, ast.Attribute) and node.attr in _LOGGERS


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""

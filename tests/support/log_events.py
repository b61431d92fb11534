"""Finds the log events that a package's code writes, in its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

NOUN_VERB = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})


@dataclass(frozen=True)
class WrittenEvent:
    """One call of a logger."""

    name: str | None
    """None if it is not a literal string."""
    level: str
    fields: frozenset[str]
    """The names of its keywords. `**` if some are computed."""
    where: str
    """FILE:LINE."""


def log_events_of(package: ModuleType) -> list[WrittenEvent]:
    """Return each call of a logger (`_log`, `self._log`, `logger` ...) in `package`."""
    assert package.__file__ is not None
    root = Path(package.__file__).parent
    return [event for file in sorted(root.rglob("*.py")) for event in _events_in(file, root)]


def _events_in(file: Path, root: Path) -> Iterator[WrittenEvent]:
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _LEVELS
            and _is_logger(node.func.value)
        ):
            yield WrittenEvent(
                _literal(node.args),
                node.func.attr,
                frozenset(keyword.arg or "**" for keyword in node.keywords),
                f"{file.relative_to(root)}:{node.lineno}",
            )


def _is_logger(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.strip("_") in ("log", "logger")


def _literal(arguments: list[ast.expr]) -> str | None:
    first = arguments[0] if len(arguments) == 1 else None
    value = first.value if isinstance(first, ast.Constant) else None
    return value if isinstance(value, str) else None

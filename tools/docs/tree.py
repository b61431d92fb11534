"""The tree of packages, in plain text, from the first sentence of each docstring."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

# The directories without a docstring of their own.
_DIRECTORIES = {
    "protos/tasklogs/v1": "The API, commented so that it reads as the reference",
    "deploy": "Container image, Compose, Kubernetes, systemd, Envoy, Grafana",
    "requirements": "The locks: every dependency, with hashes",
    "tools": "What the Makefile calls",
}
# Their modules are listed too, because readers open them first.
_ROOTS = ("clients/python/tasklogs", "server/tasklogs_server")
_TESTS = "tests"
_BESIDE = ("bench", "demo")

_COLUMN, _WIDTH, _INDENT = 29, 100, "  "
_FIRST_SENTENCE = re.compile(r"(.+?)(?:\.\s|\.?$|\n\n)", re.DOTALL)


def packages(root: Path) -> str:
    """Return the tree of the checkout at `root`, as a block of Markdown.

    Raises FileNotFoundError for a directory of the table that does not exist.
    """
    lines = [*_directory(root, "protos/tasklogs/v1")]
    for name in _ROOTS:
        lines += _package(root / name, name, modules=True)
    lines += _package(root / _TESTS, _TESTS, modules=False)
    for name in _BESIDE:
        lines += _line(f"{name}/", _sentence(root / name / "__init__.py"))
    for name in ("deploy", "requirements", "tools"):
        lines += _directory(root, name)
    return "\n".join(["```text", *lines, "```"])


def _directory(root: Path, name: str) -> Iterator[str]:
    if not (root / name).is_dir():
        raise FileNotFoundError(root / name)
    return _line(f"{name}/", _DIRECTORIES[name])


def _package(path: Path, name: str, *, modules: bool, depth: int = 0) -> Iterator[str]:
    indent = _INDENT * depth
    yield from _line(f"{indent}{name}/", _sentence(path / "__init__.py"))
    if modules:
        for module in sorted(path.glob("*.py")):
            if not module.name.startswith("__"):
                yield from _line(f"{indent}{_INDENT}{module.name}", _sentence(module))
    for inner in sorted(one.parent for one in path.glob("*/__init__.py")):
        yield from _package(inner, inner.name, modules=False, depth=depth + 1)


def _line(name: str, about: str) -> Iterator[str]:
    # A name longer than its column keeps two spaces before the text.
    width = _WIDTH - _COLUMN
    first, *rest = textwrap.wrap(about, width, break_on_hyphens=False) or [""]
    if len(name) + 2 > _COLUMN:
        yield name
    else:
        yield f"{name:<{_COLUMN}}{first}".rstrip()
        first = ""
    yield from (" " * _COLUMN + one for one in (first, *rest) if one)


def _sentence(module: Path) -> str:
    """Return the first sentence of a module's docstring without its full stop, or nothing."""
    docstring = ast.get_docstring(ast.parse(module.read_text())) if module.exists() else None
    found = _FIRST_SENTENCE.match(docstring or "")
    return " ".join(found[1].split()) if found else ""

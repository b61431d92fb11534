"""Finds what a program can find in the text that people read: long lines and unwanted words.

    python tools/check_prose.py [--names] [FILE ...]

Width: prose of Markdown files, and comments of protos, shell scripts, YAML and the Makefile, has at
most 100 columns. Tables, code blocks and the targets of links may be longer. Ruff checks the lines
of Python.

Words: `TERMS` lists words and phrases that this project does not use, each with what to write
instead. They are looked for in Markdown, comments, docstrings, string literals with a space in
them, and names of tests. `--names` also looks for the class names of `RETIRED_NAMES`.

Exit code 1: something was found. Each finding is one line: file:line: what it is.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100


@dataclass(frozen=True)
class Term:
    """A phrase as a regular expression; one space stands for any white space."""

    pattern: str
    instead: str

    def matcher(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{self.pattern})".replace(" ", r"\s+"), re.IGNORECASE)


TERMS = (
    Term(r"who(?:so)?ever\b|whomever\b", "any client that, each caller that"),
    Term(r"for ever\b", "indefinitely, without a limit"),
    Term(r"may all\b", "has admin rights, may do everything"),
    Term(r"strangers?\b", "unauthenticated callers, any client, untrusted input"),
    Term(r"rooms\b", "packages; for a log: limits"),
    # "Room for ten more" is ordinary English.
    Term(
        r"(?:an?|the|this|that|each|every|other|another|its|their|own|same|\w+'s) "
        r"room\b(?! (?:for|to|left|that is left)\b)",
        "package; for a log: limits",
    ),
    Term(r"rather no(?:ne|t)?\b", "say what is refused, and when"),
    Term(r"(?:is|are|was|were|be|of) (?:no|little) help\b", "say what does not work"),
    Term(r"more to do than it can\b", "is overloaded"),
    Term(r"(?:hold|holds|held|holding) up a drain\b", "delays shutdown"),
    Term(r"in good order\b", "gracefully"),
    Term(r"(?:take|takes|took|taking) no answers?\b", "does not read the response"),
    Term(r"untaken\b", "unsent, unread"),
    Term(r"(?:hold|holds|held|holding) a place\b", "occupies a slot"),
    Term(r"only an admin may\b", "requires the tasklogs:admin scope"),
    Term(r"flags go before\b", "flags override"),
    Term(r"nobody in particular\b", "an unprivileged user"),
    Term(r"(?<=,\s)save(?= (?:the|for|in|by|where|when|that|what|`))", "except"),
)

# Classes whose names say something private to this project, with the term of the field.
RETIRED_NAMES = {
    "Arrivals": "request body",
    "Attention": "stall-free clock",
    "Departures": "disconnects",
    "Moments": "timestamps",
    "Places": "cursors",
    "Presence": "circuit breaker",
    "Room": "log limits",
    "Sending": "unsent responses",
    "Shared": "singleflight",
    "Standing": "lease",
}

_MARKDOWN = ("README.md", "CHANGELOG.md", "docs/**/*.md", "findings/*.md")
_PYTHON = tuple(
    f"{place}/**/*.py" for place in ("server", "clients/python", "tests", "bench", "demo", "tools")
)
_COMMENTED = (
    "protos/**/*.proto",
    "deploy/**/*",
    "findings/*.sh",
    "tools/*.sh",
    "demo/run",
    ".ci/run",
    "Makefile",
)
# Generated stubs; and what names the terms in order to find them.
_NOT_CHECKED = re.compile(
    r"clients/python/tasklogs/v1/|tools/check_prose\.py$|tests/tools/test_check_prose\.py$"
)

_LINK_TARGET = re.compile(r"\]\([^)]*\)|https?://\S+")
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_FENCE = re.compile(r"\s*(```|~~~)")
_MATCHERS = [(term, term.matcher()) for term in TERMS]


@dataclass(frozen=True)
class Finding:
    """What was found, and where: a line counts from 1."""

    line: int
    what: str


@dataclass(frozen=True)
class _Text:
    line: int  # of the first character
    text: str


def findings(path: Path, *, names: bool = False) -> list[Finding]:
    """Return what is wrong in one file, in the order of its lines."""
    source = path.read_text()
    if path.suffix == ".py":
        found = [*_words(_python_prose(source)), *(_retired_names(source) if names else ())]
    elif path.suffix == ".md":
        found = [*_markdown_width(source), *_words([_Text(1, _without_code(source))])]
    else:
        comments = list(_comments(source, "//" if path.suffix == ".proto" else "#"))
        found = [*_comment_width(source, comments), *_words(_paragraphs(comments))]
    return sorted(found, key=lambda one: (one.line, one.what))


def _words(texts: Sequence[_Text]) -> Iterator[Finding]:
    for term, matcher in _MATCHERS:
        for text in texts:
            for match in matcher.finditer(text.text):
                line = text.line + text.text.count("\n", 0, match.start())
                said = " ".join(match[0].split())
                yield Finding(line, f'"{said}": write instead: {term.instead}')


def _markdown_width(source: str) -> Iterator[Finding]:
    in_code = False
    for number, line in enumerate(source.splitlines(), start=1):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code and not line.lstrip().startswith("|"):
            yield from _too_wide(number, _LINK_TARGET.sub("", line))


def _comment_width(source: str, comments: Sequence[_Text]) -> Iterator[Finding]:
    lines = source.splitlines()
    for comment in comments:
        yield from _too_wide(comment.line, _LINK_TARGET.sub("", lines[comment.line - 1]))


def _too_wide(number: int, line: str) -> Iterator[Finding]:
    if len(line) > WIDTH:
        yield Finding(number, f"{len(line)} columns: wrap at {WIDTH}")


def _without_code(markdown: str) -> str:
    # The name of something in code marks is not prose. Lines keep their numbers.
    return _INLINE_CODE.sub("``", markdown)


def _comments(source: str, sign: str) -> Iterator[_Text]:
    pattern = re.compile(rf"(?:^|\s){sign}+\s?(.*)")
    for number, line in enumerate(source.splitlines(), start=1):
        if found := pattern.search(line):
            yield _Text(number, found[1])


def _paragraphs(lines: Sequence[_Text]) -> list[_Text]:
    # The end of a line can break a phrase.
    joined: list[_Text] = []
    for one in lines:
        last = joined[-1] if joined else None
        if last and last.line + last.text.count("\n") + 1 == one.line:
            joined[-1] = _Text(last.line, f"{last.text}\n{one.text}")
        else:
            joined.append(one)
    return joined


def _python_prose(source: str) -> list[_Text]:
    comments = [
        _Text(token.start[0], token.string.lstrip("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    texts = _paragraphs(comments)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            texts.append(_Text(node.lineno, node.value))
        elif _is_test(node):
            texts.append(_Text(node.lineno, node.name.replace("_", " ")))
    return texts


def _is_test(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, functions) and node.name.startswith("test_")


def _retired_names(source: str) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name in RETIRED_NAMES:
            instead = RETIRED_NAMES[node.name]
            yield Finding(node.lineno, f"class {node.name}: name it after the {instead}")


def checked_files(root: Path) -> list[Path]:
    """Return the files of a checkout that people read, sorted."""
    found = {
        path
        for pattern in (*_MARKDOWN, *_PYTHON, *_COMMENTED)
        for path in root.glob(pattern)
        if path.is_file() and path.suffix != ".json"
    }
    return sorted(
        path for path in found if not _NOT_CHECKED.search(path.relative_to(root).as_posix())
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the text that people read.")
    parser.add_argument("--names", action="store_true", help="check the names of classes too")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    count = 0
    for path in options.files or checked_files(ROOT):
        shown = path.resolve()
        name = shown.relative_to(ROOT) if shown.is_relative_to(ROOT) else path
        for finding in findings(path, names=options.names):
            print(f"{name}:{finding.line}: {finding.what}")
            count += 1
    if count:
        print(f"{count} findings; tools/check_prose.py has the list", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

"""Text for a terminal, text as bytes, and text above the maximum length."""

from __future__ import annotations

import contextlib
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len

from tasklogs.cli.render.brief import LINES, short
from tasklogs.cli.render.follow_append import AppendedText
from tasklogs.cli.render.terminal_text import one_line, safe_json, visible
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import EntriesChanged, EntryChange
from tasklogs.enums import TaskLogType
from tasklogs.log.text import is_boundary, to_utf8
from tasklogs.log.truncation import MAX_CONTENT_BYTES, truncate
from tasklogs.visible import INVISIBLE, in_one_line, visible_name
from tests.fuzz.target import Target

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_LONG = 8_000
_CUTS = 4
_COLUMNS = 40
_TOKENS = (
    *(b"\x1b]0;x\x07", b"\x1b[2J", b"\xc2\x9b", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\r", b"\n"),
    *(b"\xe2\x80\x8b", b"\xe2\x80\x8d", b"\xef\xb8\x8f", b"\xcc\x81", b"\xf3\xa0\x81\xa7", b"1"),
    *(b"\xf0\x9f\x8f\xb4", b"\xf0\x9f\x91\xa8", b"\xd9\x85", b"\xe2\x83\xa3"),
    *(b"\t", b" " * 16, b"\x7f", b"\xed\xa0\x80", b"\xf0\x9f\x99\x82", b"[red]", b"\\x1b", b'"'),
)


def _text(data: bytes) -> str:
    """Return any text that Python can hold, including lone surrogates."""
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="surrogateescape")


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI


class TerminalText(Target):
    """No control character is left and the rest is unchanged, for any pieces and any length."""

    name: ClassVar[str] = "terminal_text"
    max_bytes: ClassVar[int] = 1024
    tokens: ClassVar[Sequence[bytes]] = _TOKENS

    def seeds(self) -> Iterable[bytes]:
        cuts = bytes([1, 5, 2, 9])
        yield cuts + b"plain [red]x[/red] :smile:"
        yield cuts + "\x1b]52;c;AAAA\x07\x9b2J\u202egnp\r\nüx\r\r\n\t\u2028\ud800\U0001f642".encode(
            errors="surrogatepass"
        )
        yield cuts + b"a" + b" " * 200 + b"\n\t \r" * 20 + b"b"
        yield cuts + b"\r" * 50 + b"\n" * 50
        yield (
            cuts
            + "ev\u200bil \U0001f468\u200d\U0001f469 1\ufe0f\u20e3 a\ufe0f e\u0301\u0301".encode()
        )

    def run(self, data: bytes) -> None:
        cuts, text = data[:_CUTS], _text(data[_CUTS:])
        shown = visible(text)
        assert not any(_is_control(c) for c in shown.replace("\r\n", "\n") if c not in "\n\t")
        assert visible(shown) == shown
        assert [c for c in shown if c in "\n\t"] == [c for c in text if c in "\n\t"]
        kept = re.sub(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8}", "", shown)
        assert set(kept) <= set(text) | set("\\")
        for line in (one_line(text), in_one_line(text)):
            assert not any(map(_is_control, line)), line
        assert not _INVISIBLE.search(visible_name(text))
        assert visible_name(visible_name(text)) == visible_name(text)
        value = json.dumps(text, ensure_ascii=False)
        assert json.loads(safe_json(value)) == text
        assert not any(_is_control(c) for c in safe_json(value) if not 0xD800 <= ord(c) < 0xE000)
        if text and len(text) % 8 == 0:
            long = text * (_LONG // len(text))
            for make_safe in (visible, one_line, in_one_line, safe_json):
                make_safe(long)
        _check_pieces(text, cuts)
        for type_ in (TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT, TaskLogType.NOTICE):
            brief = short(type_, "#1", text, _COLUMNS)
            assert visible(brief) == brief
            rows = brief.split("\n")
            assert len(rows) <= LINES + 1
            assert all(cell_len(row.replace("\t", "")) <= _COLUMNS for row in rows)


def _check_pieces(text: str, cuts: bytes) -> None:
    """Text printed in pieces gives the same result as text printed at once."""
    printer = AppendedText("t", escaped=True, on_terminal=True)
    ends, end = [], 0
    for cut in cuts:
        end = min(len(text), end + cut)
        ends.append(end)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        before: LogEntry | None = None
        for revision, end in enumerate([*ends, len(text)], 1):
            entry = LogEntry(
                id=0, type=TaskLogType.OUTPUT, content=text[:end], time_ns=0, revision=revision
            )
            old = 0 if before is None else len(before.content)
            change = EntryChange(
                entry=entry,
                replaces=None if before is None else before.revision,
                kept=old,
                appended=text[old:end],
            )
            printer.show(EntriesChanged(cursor="", epoch=1, changes=(change,)))
            before = entry
        printer.finish()
    printed = out.getvalue().partition("\n")[2]
    assert printed == visible(text) + ("\n" if text.endswith("\n") else "\n\n")


class Texts(Target):
    """Text becomes equal UTF-8. If it is too long, it loses whole characters at its front."""

    name: ClassVar[str] = "text"
    max_bytes: ClassVar[int] = 1024
    tokens: ClassVar[Sequence[bytes]] = _TOKENS

    def seeds(self) -> Iterable[bytes]:
        yield b"\x00" + "aü漢😀\ud800\udfff\0".encode(errors="surrogatepass")
        yield b"\x01" + "漢".encode()
        yield b"\x81" + "😀x".encode()
        yield b"\x03\xff\xfe\xed\xa0\x80\xed\xb0\x80"

    def run(self, data: bytes) -> None:
        text = _text(data[1:])
        encoded = to_utf8(text)
        plain = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
        assert encoded.decode() == plain
        for position in range(-1, len(encoded) + 2):
            cut = 0 <= position <= len(encoded) and _decodes(encoded[:position])
            assert is_boundary(encoded, position) == cut
        if encoded and data[0] & 1:
            _check_truncation(
                encoded * (MAX_CONTENT_BYTES * (1 + (data[0] >> 7)) // len(encoded) + 1)
            )


def _decodes(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_truncation(content: bytes) -> None:
    dropped, kept = truncate(content)
    assert content[dropped:] == kept
    assert len(kept) <= MAX_CONTENT_BYTES
    kept.decode()
    # A little more text rarely moves the front, and never back.
    again, _ = truncate(content + b"x")
    assert again >= dropped

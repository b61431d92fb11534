"""Escapes the characters of untrusted text that could steer a terminal, or deceive its reader.

An agent's output may contain sequences that move the cursor, change the window's title, fill the
clipboard, or reorder text (bidi controls). Other characters show nothing at all (zero-width spaces,
tags), so that two different texts look the same. Some of those are needed in text: a joiner inside
an emoji or a Persian word. In a name, none is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, MutableMapping
from functools import cache
from typing import Any, NamedTuple

MAX_MARKS = 6
"""Combining marks in a row that are shown. No script needs more; hundreds cover other lines."""
CONTEXT = 16
"""How many characters before a character can decide whether it is escaped, at most."""

_C0_AND_C1 = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_SURROGATES = r"\ud800-\udfff"
_SEPARATORS = r"\u2028\u2029"
# Unicode's property Default_Ignorable_Code_Point, which includes the bidi controls: a terminal
# shows nothing. And the controls of interlinear annotations.
INVISIBLE = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
# The other format characters (category Cf): signs in text, of no use in a name.
_OTHER_FORMAT = (
    r"\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f"
)
_BLANKS = r"\xa0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000"

# After one of these, an invisible character can be part of the text.
_EMOJI = (
    r"\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f"
    r"\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_WITH_VARIANTS = (
    _EMOJI + r"\u1000-\u102a\u2200-\u22ff\u2a00-\u2aff\u3001-\u3020\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff01-\uff60\U00020000-\U0003fffd"
)
# Arabic, Syriac, the scripts of India and South-East Asia, Mongolian.
_JOINING = (
    r"\u0620-\u06dc\u06de-\u06ff\u0710-\u088f\u0892-\u08e1\u08e3-\u0dff\u0f00-\u109f\u1780-\u17b3"
    r"\u17b6-\u17dd\u1820-\u18aa\ua800-\ua8ff\ua980-\ua9df\uaa00-\uaaff\uabc0-\uabff\ufb50-\ufdff"
    r"\ufe70-\ufefc\U00010a00-\U000110bc\U000110be-\U000110cc\U000110ce-\U00011fff"
    r"\U0001e900-\U0001e95f"
)
_FLAG = "\U0001f3f4"
_REGIONS = ("gbeng", "gbsct", "gbwls")  # England, Scotland and Wales are written in tags
_FLAGS = "|".join("".join(chr(0xE0000 + ord(letter)) for letter in one) for one in _REGIONS)
_TAGS = r"\U000e0020-\U000e007e"

# As one range: `re` tries ranges of these one after another.
_BEYOND_BMP = r"\U00010000-\U0010ffff"

_STEERING = re.compile(rf"[{_C0_AND_C1}]|\r(?!\n)")
_UNDECIDED = re.compile(rf"(?:\r|(?<=[0-9#*])\ufe0f|(?<={_FLAG})[{_TAGS}]{{1,6}})\Z")
_WHITE = re.compile(r"[\t\n\r]")


def visible(text: str, start: int = 0, end: int | None = None) -> str:
    r"""Return `text[start:end]` with what steers or hides escaped (`\x1b`), save newlines and tabs.

    What is before `start` decides whether an invisible character belongs to the text.
    """
    end = len(text) if end is None else end
    if text.isascii():
        return _STEERING.sub(_written_out, text[start:end])
    return _replaced(text, start, end, _in_text(), _written_out)


def undecided(text: str) -> int:
    """Return how many characters at the end of `text` may be escaped or not, as more follows."""
    # The longest is a flag and its tags.
    match = _UNDECIDED.search(text[-8:])
    return 0 if match is None else len(match[0])


def visible_name(text: str) -> str:
    r"""Return `text`, a name, with every character escaped that is not plainly visible.

    Also newlines and tabs (`\n`), and spaces that are not the usual one.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _WHITE.sub(_named, text)
    return _replaced(text, 0, len(text), _in_names(), _written_out)


def in_one_line(text: str) -> str:
    """Return `text` for a line of a log, escaped like a name: most of it is names."""
    return visible_name(text)


def fields_in_one_line(
    _: object, __: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep each field of a log event on one line. A structlog processor.

    It leaves out `exception`, because a traceback has several lines.
    """
    for name, value in line.items():
        if isinstance(value, str) and name != "exception":
            line[name] = in_one_line(value)
    return line


def json_escaped(text: str) -> str:
    r"""Return JSON `text` with what hides or steers, and `json` leaves raw, as `\uXXXX`."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _replaced(text, 0, len(text), _in_json(), _as_json)


class _Escaped(NamedTuple):
    """What is escaped: in each run of `suspects`, which is fast to find, what `pattern` matches.

    A match of its group `kept` stays as it is. The lookbehinds have a fixed length, so the time is
    proportional to the length of the text.
    """

    suspects: re.Pattern[str]
    pattern: re.Pattern[str]


def _replaced(
    text: str, start: int, end: int, escaped: _Escaped, write: Callable[[re.Match[str]], str]
) -> str:
    parts: list[str] = []
    for run in escaped.suspects.finditer(text, start, end):
        # One more character, which a lookahead may need.
        for match in escaped.pattern.finditer(text, run.start(), min(run.end() + 1, end)):
            if match.lastgroup is None:
                parts += text[start : match.start()], write(match)
                start = match.end()
    return "".join((*parts, text[start:end]))


@cache
def _in_text() -> _Escaped:
    always = rf"{_C0_AND_C1}{_SURROGATES}{_SEPARATORS}{INVISIBLE}"
    in_a_row = rf"[{_marks()}\u200c\u200d\ufe00-\ufe0f]"
    return _Escaped(
        re.compile(rf"[{always}{_marks(0x10000)}{_BEYOND_BMP}\r]+"),
        re.compile(
            rf"{in_a_row}(?<={in_a_row}{{{MAX_MARKS + 1}}})"
            r"|(?P<kept>"
            rf"(?<=[{_WITH_VARIANTS}])[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
            r"|(?<=[0-9#*])\ufe0f(?=\u20e3)"
            rf"|(?<=[{_EMOJI}])\u200d|(?<=[{_EMOJI}]\ufe0f)\u200d"
            rf"|(?<=[{_JOINING}])[\u200c\u200d]"
            r"|(?<=[\u1820-\u18aa])[\u180b-\u180f]"
            rf"|(?<={_FLAG})(?:{_FLAGS})\U000e007f"
            rf")|[{always}]|\r(?!\n)"
        ),
    )


@cache
def _in_names() -> _Escaped:
    always = rf"{_C0_AND_C1}{_SURROGATES}{_SEPARATORS}{INVISIBLE}{_OTHER_FORMAT}{_BLANKS}"
    # A mark at the start, or after a space or slash, would combine with what is printed before.
    return _without_floods(always, rf"|(?<![^ /])[{_marks()}]")


@cache
def _in_json() -> _Escaped:
    return _without_floods(rf"\x7f-\x9f{_SEPARATORS}{INVISIBLE}{_OTHER_FORMAT}")


def _without_floods(always: str, more: str = "") -> _Escaped:
    marks = f"[{_marks()}]"
    return _Escaped(
        re.compile(rf"[{always}{_marks(0x10000)}{_BEYOND_BMP}]+"),
        re.compile(rf"[{always}]|{marks}(?<={marks}{{{MAX_MARKS + 1}}}){more}"),
    )


@cache
def _marks(end: int = 0x20000) -> str:
    """Return the combining marks below `end` that take no place of their own, for a class."""
    # It takes 20 ms, and text in ASCII does not need it.
    ranges: list[list[int]] = []
    for code in range(0x300, end):
        if unicodedata.category(chr(code)) in ("Mn", "Me"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _written_out(match: re.Match[str]) -> str:
    return "".join(map(_escape, match[0]))


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _as_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _named(match: re.Match[str]) -> str:
    return {"\t": r"\t", "\n": r"\n", "\r": r"\r"}[match[0]]

"""Prints messages as protobuf JSON: full enum names, RFC 3339 times, int64 as strings.

What reads JSON expects UTF-8. If stdout has another encoding, the JSON is ASCII, which is both.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from tasklogs.cli.render.stdout import write, write_line
from tasklogs.cli.render.terminal_text import safe_json


def to_dict(message: Message) -> dict[str, Any]:
    """Return `message` as JSON objects, with the fields that have their default as well."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def to_line(value: object) -> str:
    """Return `value` as JSON on one line."""
    return _encoded(value, indent=None)


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    write_line(_encoded(value, indent=2))


def print_message(message: Message) -> None:
    """Print `message` as JSON."""
    print_json(to_dict(message))


def print_array(
    messages: Iterable[Message], end: str = "\n", *, without: Collection[str] = ()
) -> None:
    """Print an array, one message per line, each as soon as it is available.

    `without`: names of fields, as in JSON, that the server was not asked for.
    """
    before = "["
    for message in messages:
        shown = {key: value for key, value in to_dict(message).items() if key not in without}
        write(f"{before}\n{to_line(shown)}")
        before = ","
    write(("[]" if before == "[" else "\n]") + end)


def _encoded(value: object, *, indent: int | None) -> str:
    as_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    return safe_json(json.dumps(value, ensure_ascii=not as_utf8, indent=indent))

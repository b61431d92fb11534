"""Messages as protobuf JSON, for programs: whole enum names, RFC 3339 times, int64 as strings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from tasklogs.cli.render.stdout import write, write_line
from tasklogs.cli.render.terminal_text import safe_json


def to_dict(message: Message) -> dict[str, Any]:
    """`message` as JSON's objects, also with the fields that hold their default."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def to_line(value: object) -> str:
    """`value` as JSON on one line."""
    return safe_json(json.dumps(value, ensure_ascii=False))


def print_json(value: object) -> None:
    """Print `value` as JSON."""
    write_line(safe_json(json.dumps(value, ensure_ascii=False, indent=2)))


def print_message(message: Message) -> None:
    """Print `message` as JSON."""
    print_json(to_dict(message))


def print_array(messages: Iterable[Message], end: str = "\n") -> None:
    """Print an array, each message on a line of its own as soon as it is there."""
    before = "["
    for message in messages:
        write(f"{before}\n{to_line(to_dict(message))}")
        before = ","
    write(("[]" if before == "[" else "\n]") + end)

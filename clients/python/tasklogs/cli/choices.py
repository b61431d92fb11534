"""The API's enums as people type them: `start-timeout` for AgentLifecycle.START_TIMEOUT."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import typer


def typed_name(value: IntEnum) -> str:
    """What people type for a value of the API."""
    return value.name.lower().replace("_", "-")


def choice_option(enum: type[IntEnum], help_text: str, *, show_default: str | bool = False) -> Any:
    """An option of type `str` that gives the name of a member of `enum`.

    It may be typed in upper or lower case, with `-` or `_`. (Typer itself would take the numbers of
    these enums for what people type.)
    """
    names = [typed_name(value) for value in enum if value]
    return typer.Option(
        parser=_parser(enum),
        metavar=f"<{'|'.join(names)}>",
        autocompletion=lambda: names,
        show_default=show_default,
        help=help_text,
    )


def choices_option(enum: type[IntEnum], name: str, help_text: str, *, show_default: str) -> Any:
    """An option of type `list[str]` that gives names of members of `enum`.

    They are typed as for choice_option, separated by commas, in one option or in several. Use
    `names_in` on the value: Typer parses each option alone.
    """
    parse, names = _parser(enum), [typed_name(value) for value in enum if value]

    def check(text: str) -> str:
        return ",".join(parse(one.strip()) for one in text.split(","))

    return typer.Option(
        name,
        parser=check,
        metavar=f"<{'|'.join(names)}>,...",
        autocompletion=lambda: names,
        show_default=show_default,
        help=help_text,
    )


def names_in(options: list[str] | None) -> list[str]:
    """Return all names that the options of a choices_option gave."""
    return [name for option in options or () for name in option.split(",")]


def _parser(enum: type[IntEnum]) -> Callable[[str], str]:
    members = {typed_name(value): value.name for value in enum if value}

    def parse(text: str) -> str:
        name = members.get(text.lower().replace("_", "-"))
        if name is None:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, members))}.")
        return name

    return parse

"""Warns of an environment variable that looks like a setting and is none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from tasklogs.cli.render.stderr import print_notice
from tasklogs.cli.serve_help import setting_variables

_PREFIX = "TASKLOGS_"
_WITHOUT_AN_OPTION = ("TASKLOGS_TOKEN", "TASKLOGS_TRACEBACK")
# Kubernetes sets these for a Service of that name.
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_NEAR = 0.65
"""How much of two names must be the same, from 0 to 1: DB_URL is near DATABASE_URL."""


def warn_of_misspelt(root: Any) -> None:
    """Warn of each variable whose name is near that of a setting. `root`: the command line."""
    known = {*_WITHOUT_AN_OPTION, *_variables_of(root)}
    unknown = [name for name in os.environ if _is_meant_for_this(name) and name not in known]
    if not unknown:
        return
    import difflib

    known.update(setting_variables())  # this takes a moment
    suffixes = [name.removeprefix(_PREFIX) for name in sorted(known)]
    for name in sorted(set(unknown) - known):
        near = difflib.get_close_matches(name.removeprefix(_PREFIX), suffixes, 1, _NEAR)
        if near:
            print_notice(f"there is no setting {name}: did you mean {_PREFIX}{near[0]}?")


def _is_meant_for_this(name: str) -> bool:
    return (
        name.startswith(_PREFIX)
        and not name.startswith(f"{_PREFIX}TEST_")
        and _SERVICE_LINK.fullmatch(name) is None
    )


def _variables_of(command: Any) -> Iterator[str]:
    """Yield the variables of a command's options, and of those below it."""
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar
    for below in getattr(command, "commands", {}).values():
        yield from _variables_of(below)

"""The options of `python -m tests.system.hostile`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tests.system.hostile.behaviours import BEHAVIOURS, CONTROL, WITH_A_TOKEN
from tests.system.hostile.served import Mode

ALL_TOGETHER = "all of them together"
ALL_TOKENS_TOGETHER = "all tokens together"


def parse(description: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.system.hostile", description=description)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds of each kind")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each round")
    parser.add_argument("--mode", choices=[*Mode, "both"], default="both")
    parser.add_argument(
        "--only", action="append", default=[], help="only behaviours with this in their name"
    )
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="only what one valid token of each kind allows, over TLS",
    )
    parser.add_argument(
        "--together-seconds",
        type=float,
        default=120.0,
        help=f"length of the one hostile round of {ALL_TOKENS_TOGETHER!r}",
    )
    parser.add_argument(
        "--default-limits",
        action="store_true",
        help="the server's default limits of memory instead of small ones",
    )
    options = parser.parse_args(arguments)
    if options.tokens:
        options.mode = Mode.TLS
    return options


def names_of(options: argparse.Namespace, mode: Mode) -> list[str]:
    """Return the names of the rows."""
    by_hand = [name for name in BEHAVIOURS if name not in WITH_A_TOKEN and name != CONTROL]
    names = [] if options.tokens else [*by_hand, ALL_TOGETHER]
    if mode is Mode.TLS:
        names += [*WITH_A_TOKEN, ALL_TOKENS_TOGETHER]
    only = options.only
    return [name for name in names if not only or any(one in name for one in only)]


def behaviours_of(name: str) -> list[str]:
    """Return the behaviours of a row."""
    if name == ALL_TOKENS_TOGETHER:
        return [*WITH_A_TOKEN]
    if name == ALL_TOGETHER:
        return [one for one in BEHAVIOURS if one not in WITH_A_TOKEN and one != CONTROL]
    return [name]

"""Finds a number that no account and no group has, for a Postgres that runs with it."""

import grp
import hashlib
import pwd
from pathlib import Path

# Distributions assign none of these (https://systemd.io/UIDS-GIDS). In a container whose IDs are
# mapped, often only those below 65536 exist, hence the second range.
_RANGES = (range(1_879_048_192, 2_147_352_576), range(60_578, 61_184))
_ATTEMPTS = 100
_MAPS = (Path("/proc/self/uid_map"), Path("/proc/self/gid_map"))


def free_id(purpose: bytes) -> int | None:
    """Return a number that is free as uid and as gid, the same one each time for one `purpose`.

    None: this process may use no number of the ranges.
    """
    first = int.from_bytes(hashlib.sha256(purpose).digest(), "big")
    for numbers in _RANGES:
        for step in range(_ATTEMPTS):
            number = numbers[(first + step) % len(numbers)]
            if is_free(number) and all(_is_mapped(number, ids) for ids in _MAPS):
                return number
    return None


def is_free(number: int) -> bool:
    """Whether `number` is in the ranges of `free_id`, and no account and no group has it."""
    return any(number in numbers for numbers in _RANGES) and not (
        _has_account(number) or _has_group(number)
    )


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _has_group(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _is_mapped(number: int, ids: Path) -> bool:
    # Columns: first number in this namespace, first number outside, how many.
    for line in ids.read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= number < first + count:
            return True
    return False

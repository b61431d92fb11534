"""Text for measurements: prose, which Postgres compresses, and noise, which it cannot compress."""

from __future__ import annotations

import functools
import random
import string

_VOCABULARY_WORDS = 2000


@functools.cache
def words(size: int, *, seed: int = 0) -> str:
    """Return `size` characters (ASCII) of random words; pglz halves them."""
    chance = random.Random(seed)
    vocabulary = _vocabulary()
    text = ""
    while len(text) < size:
        text += " ".join(chance.choices(vocabulary, k=100)) + "\n"
    return text[:size]


def noise(size: int, *, seed: int = 0) -> str:
    """Return `size` characters (ASCII) that do not compress."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=size))


@functools.cache
def _vocabulary() -> list[str]:
    chance = random.Random(1)
    return [
        "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 10)))
        for _ in range(_VOCABULARY_WORDS)
    ]

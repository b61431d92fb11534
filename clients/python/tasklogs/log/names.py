"""Makes names that an entry may have from those that a source gives."""

from __future__ import annotations

import hashlib

from tasklogs.log.entry import MAX_NAME_BYTES, NO_NAMES, Names
from tasklogs.log.text import boundary_before, to_utf8

_MARK_CHARACTERS = 16


def fitted_names(source_id: str = "", name: str = "", call_id: str = "") -> Names:
    """Return the names of an entry. Lone surrogates become U+FFFD, as in content.

    A name of more than 255 bytes keeps its beginning, and ends with `~` and 16 characters of the
    hexadecimal SHA-256 of the whole name. So names that differ stay different, and a source that is
    read again gets the same names.
    """
    if not (source_id or name or call_id):
        return NO_NAMES
    return Names(_fitted(source_id), _fitted(name), _fitted(call_id))


def _fitted(text: str) -> str:
    # Most names are short and ASCII.
    if text.isascii() and len(text) <= MAX_NAME_BYTES:
        return text
    encoded = to_utf8(text)
    if len(encoded) <= MAX_NAME_BYTES:
        return encoded.decode()
    mark = hashlib.sha256(encoded).hexdigest()[:_MARK_CHARACTERS]
    end = boundary_before(encoded, MAX_NAME_BYTES - len(mark) - 1)
    return f"{encoded[:end].decode()}~{mark}"

"""How the ledger names a content without repeating it."""

from __future__ import annotations

import hashlib

MARK_DIGITS = 16


def mark(content: str) -> str:
    """Return the first digits of the SHA-256 of the content's UTF-8."""
    return hashlib.sha256(content.encode()).hexdigest()[:MARK_DIGITS]

"""A short name for a content, so that the ledger need not repeat the content."""

from __future__ import annotations

import hashlib

MARK_DIGITS = 16


def mark(content: str) -> str:
    """Return the first digits of the SHA-256 of the content in UTF-8."""
    return hashlib.sha256(content.encode()).hexdigest()[:MARK_DIGITS]

"""One page of a log or of a list of tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, TypeVar

T = TypeVar("T")


class Page(tuple[T, ...]):
    """The entries or tasks of one page, as a tuple."""

    next_page_token: str | None
    """Pass it as `page_token` to the same call to get the page after this one. None: there is none.

    Any process may do so: a token holds everything that the server needs.
    """

    def __new__(cls, items: Iterable[T], next_page_token: str | None = None) -> Self:
        """Return a page of `items`."""
        page = super().__new__(cls, items)
        page.next_page_token = next_page_token
        return page

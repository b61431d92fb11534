"""Named parameters in SQL: `:task_id` instead of `$1`, turned into numbers once, at import."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter

# What is copied as it is: string literals, quoted names, comments and casts.
_TOKEN = re.compile(
    r"""
    '(?:[^']|'')*' | "[^"]*" | --[^\n]* | /\*.*?\*/ | ::
    | (?P<number> \$\d+)
    | : (?P<name> [A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


class NamedStatement:
    """A statement with named parameters, as asyncpg takes it.

    A name may occur more than once. `$1` is refused: numbers and names do not mix. So are
    statements with fewer than two names, which need none. Literals with backslash escapes (`E''`)
    and dollar quotes are not understood.
    """

    def __init__(self, template: str) -> None:
        numbers: dict[str, int] = {}

        def numbered(token: re.Match[str]) -> str:
            if token["number"]:
                raise ValueError(f"{token['number']}: use names only")
            name = token["name"]
            if name is None:
                return token[0]
            return f"${numbers.setdefault(name, len(numbers) + 1)}"

        self.sql = _TOKEN.sub(numbered, template)
        """The statement with `$1`, `$2` ... in the order in which the names first occur."""
        if len(numbers) < 2:
            raise ValueError("a statement with named parameters has at least two")
        self._count = len(numbers)
        self._in_order: Callable[[Mapping[str, object]], tuple[object, ...]] = itemgetter(*numbers)

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """Return `values` in the order of `sql`'s parameters.

        Raises TypeError where a parameter has no value, or a value no parameter.
        """
        try:
            in_order = self._in_order(values)
        except KeyError as missing:
            raise TypeError(f"no value for the parameter {missing}") from None
        if len(values) != self._count:
            raise TypeError(f"{len(values)} values for {self._count} parameters")
        return in_order

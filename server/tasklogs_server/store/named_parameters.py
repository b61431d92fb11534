"""Named parameters in SQL: `:task_id` instead of `$1`. They become numbers once, at import."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter

# String literals, quoted names, comments and casts are copied without a change.
_TOKEN = re.compile(
    r"""
    '(?:[^']|'')*' | "[^"]*" | --[^\n]* | /\*.*?\*/ | ::
    | (?P<number> \$\d+)
    | : (?P<name> [A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


class NamedStatement:
    """A statement with named parameters, converted to asyncpg's numbered ones.

    A name may occur more than once. Raises ValueError for a numbered parameter such as `$1`, and
    for fewer than two names. Literals with backslash escapes (`E''`) and dollar quotes are not
    supported.
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
        self._names = numbers.keys()
        if len(numbers) < 2:
            raise ValueError("a statement with named parameters has at least two")
        self._count = len(numbers)
        self._in_order: Callable[[Mapping[str, object]], tuple[object, ...]] = itemgetter(*numbers)

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """Return `values` in the order of `sql`'s parameters.

        Raises TypeError if a parameter has no value, or a value has no parameter.
        """
        try:
            in_order = self._in_order(values)
        except KeyError as missing:
            raise TypeError(f"no value for the parameter {missing}") from None
        if len(values) != self._count:
            raise TypeError(f"{len(values)} values for {self._count} parameters")
        return in_order

    def some_of(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """Return those of `values` that `sql` has parameters for, in their order.

        Raises TypeError if a parameter has no value.
        """
        return self.arguments({name: values[name] for name in self._names if name in values})
